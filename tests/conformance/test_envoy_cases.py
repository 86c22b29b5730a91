"""The 53 cases observed on Envoy 1.40 (xds-examples/observed.json), replayed against our sidecar and against a live Envoy."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.envoy_mesh import EXAMPLES, Caller, Mesh, envoy_caller, our_caller
from tests.support import require

Json = dict[str, Any]
CASES: list[Json] = json.loads((EXAMPLES / "observed.json").read_text())["cases"]
LIMITS = "local rate limit is a kind of a later issue"
AUTH = "AuthorizationPolicy and RequestAuthentication are kinds of a later issue"
NOT_YET = {"local rate limit (RL)": LIMITS, "RBAC": AUTH, "JWT": AUTH, "ext_authz": AUTH, "tcp_proxy after network RBAC deny": AUTH}
# What our sidecar does otherwise than Envoy, field by field, each with its reason; everything else of these cases must be equal.
DIFFERENT: dict[str, tuple[str, Json]] = {
    "no endpoints (UH): /empty": (
        "an attempt is a try at an endpoint; Envoy counts the choice of one",
        {"log": {"upstream_request_attempt_count": 0}},
    ),
}
LOGGED = ("response_code", "response_flags", "response_code_details", "upstream_cluster", "upstream_request_attempt_count", "route_name")
HOST = "host: reviews\r\n"
# Cases that no plain request line makes: bytes to send, and whether to leave before the answer.
RAW = {
    "stream idle timeout": f"GET /idle/sleep/2 HTTP/1.1\r\n{HOST}\r\n",
    "max_stream_duration": f"GET /longest/sleep/2 HTTP/1.1\r\n{HOST}\r\n",
    "downstream disconnect": f"GET /sleep/2 HTTP/1.1\r\n{HOST}\r\n",
    "HTTP/1.0 request": f"GET /hello HTTP/1.0\r\n{HOST}\r\n",
    "upgrade not enabled": f"GET /hello HTTP/1.1\r\n{HOST}connection: upgrade\r\nupgrade: other\r\n\r\n",
    "missing host header": "GET /hello HTTP/1.1\r\nx: y\r\n\r\n",
    "garbage request line": "GARBAGE\r\n\r\n",
    "headers > 60 KiB": f"GET /hello HTTP/1.1\r\n{HOST}x: {'a' * 70000}\r\n\r\n",
}


def reason(case: str) -> str | None:
    return next((why for start, why in NOT_YET.items() if case.startswith(start)), None)


def test_every_observed_case_is_replayed_or_listed_with_a_reason():
    assert len(CASES) == 53
    assert sum(reason(case["case"]) is not None for case in CASES) == 14
    names = {case["case"] for case in CASES}
    assert not (RAW.keys() | DIFFERENT.keys()) - names


def bytes_of(case: Json) -> bytes:
    """`name: /path -X METHOD -H header: value` is how the cases were written down."""
    if case["case"] in RAW:
        return RAW[case["case"]].encode()
    target, *options = re.split(r" -(?=[XH] )", "/" + case["case"].partition(": /")[2])
    headers = "".join(f"{option[2:]}\r\n" for option in options if option.startswith("H "))
    host = "nowhere" if case["case"].startswith("NR unknown host") else "reviews"
    return f"GET {target} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n".encode()


async def answer(reader: asyncio.StreamReader) -> tuple[str, list[str], str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = dict(line.lower().split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in head[1:] if line)
    try:
        body = await reader.readexactly(int(pairs.get("content-length", "0")))
    except asyncio.IncompleteReadError as error:
        body = error.partial
    return head[0].split(" ")[1], sorted(set(pairs) - {"date", "connection"}), body.decode()


async def overflow(caller: Caller, mesh: Mesh) -> Json:
    """Four requests at once to a cluster of one connection and one waiting place: two are refused."""
    connections = [await asyncio.open_connection("127.0.0.1", caller.port) for _ in range(4)]
    for number, (_, writer) in enumerate(connections):
        writer.write(f"GET /cb/sleep/0.5 HTTP/1.1\r\n{HOST}\r\n".encode())
        if number == 0:  # while the one connection is being made, its request itself has the waiting place
            await mesh.app.reached("/cb/")
    answers = [await answer(reader) for reader, _ in connections]
    logs = [await caller.log() for _ in connections]
    for _, writer in connections:
        writer.close()
    assert sorted(status for status, _, _ in answers) == ["200", "200", "503", "503"]
    refused = next(one for one in answers if one[0] == "503")
    assert "x-envoy-overloaded" in refused[1]
    return {"status": "503", "body": refused[2], "log": next(log for log in logs if log["response_flags"] == "UO")}


async def replay(caller: Caller, mesh: Mesh, case: Json) -> Json:
    if case["case"] == "circuit breaker overflow":
        return await overflow(caller, mesh)
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    try:
        writer.write(bytes_of(case))
        if case["case"] == "downstream disconnect":
            await mesh.app.reached("/sleep/2")
            writer.close()
            return {"status": None, "body": None, "log": await caller.log()}
        async with asyncio.timeout(60):
            status, headers, body = await answer(reader)
        return {"status": status, "headers": headers, "body": body, "log": await caller.log()}
    finally:
        writer.close()


def normal(details: str | None) -> str | None:
    """TLS texts are the library's (BoringSSL, OpenSSL): only that it was TLS is compared."""
    return re.sub(r"TLS_error:.*?(:TLS_error_end|$)", "TLS_error", details) if details else details


def comparable(seen: Json, expected: Json) -> Json:
    """What the case says, of what was seen; a body of null stands for the app's own."""
    out: Json = {"status": seen["status"]}
    if expected.get("headers") is not None:
        out["headers"] = seen.get("headers")
    if expected["body"] is not None:
        out["body"] = seen["body"]
    out["log"] = {key: seen["log"].get(key) for key in LOGGED if key in expected["log"]}
    if case_is_weighted(expected):
        out["log"]["upstream_cluster"] = str(out["log"]["upstream_cluster"]).replace("reviews-v2", "reviews-v1")
    out["log"]["response_code_details"] = normal(seen["log"].get("response_code_details"))
    return out


def case_is_weighted(case: Json) -> bool:
    """Chance sends one in ten of these to v2."""
    return bool(case["log"].get("route_name") == "weighted")


def observed(case: Json) -> Json:
    out = comparable(case, case)
    if out.get("headers") is not None:
        out["headers"] = sorted(out["headers"])
    if "body" in out:
        out["body"] = out["body"].replace("\\n", "\n")
    return out


@pytest.fixture
async def mesh():
    mesh = Mesh()
    await mesh.start()
    yield mesh
    await mesh.stop()


def cases() -> list[Any]:
    return [pytest.param(case, id=f"{case['case']} #{case['n']}") for case in CASES if reason(case["case"]) is None]


@pytest.mark.parametrize("case", cases())
async def test_our_sidecar_answers_as_envoy_was_observed_to(case: Json, mesh: Mesh):
    expected = observed(case)
    for key, value in DIFFERENT.get(case["case"], ("", {}))[1].items():
        expected[key] = {**expected[key], **value} if isinstance(value, dict) else value
    async with our_caller(mesh) as caller:
        assert comparable(await replay(caller, mesh, case), case) == expected


async def test_a_live_envoy_answers_as_it_was_observed_to(mesh: Mesh, tmp_path: Path):
    binary = require.envoy()
    found: Json = {}
    async with envoy_caller(binary, mesh, tmp_path) as caller:
        for case in CASES:
            if reason(case["case"]) is None:
                found[case["case"]] = comparable(await replay(caller, mesh, case), case)
    expected = {case["case"]: observed(case) for case in CASES if reason(case["case"]) is None}
    assert {k: v for k, v in found.items() if v != expected[k]} == {}
