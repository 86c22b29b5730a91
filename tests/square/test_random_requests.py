"""Our sidecar does with random requests over random routes what a live Envoy does. `DEVMESH_SEEDS=1000-2000` asks for others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from devmesh.config.loader import load_text
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.listener import Accepted
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import Direction
from devmesh.sidecar.seam import factory
from devmesh.sidecar.telemetry.access_log import fields
from tests.conformance.test_side_by_side import LOGGED as ANSWERED
from tests.square.client import CLIENT, Request, Way
from tests.square.compilers import TOPOLOGY, compiled
from tests.square.dataplane import Place, envoy, workload
from tests.square.random_requests import LATE, SERVICES, Asked, Traffic
from tests.square.scripted import Told, joined, scripted_apps
from tests.support.draws import seeds

Json = dict[str, Any]
SEEDS = seeds("0-3")
REQUESTS = 60
CALLER = "productpage-v1"
SECONDS = 60
VOLATILE = frozenset({"date", "x-envoy-upstream-service-time", "x-request-id"})
LOGGED = {"ask": "%REQ(X-ASK)%", **ANSWERED, "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%", "route_name": "%ROUTE_NAME%"}


def access_log(file: Path) -> Json:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return {"name": "file", "typed_config": {"@type": kind, "path": str(file), "log_format": {"json_format": LOGGED}}}


class Lines:
    """What our sidecar records, as Envoy logs it."""

    def __init__(self) -> None:
        self.found: dict[str, Json] = {}

    def record(self, record: Any, _: Any) -> None:
        ask = next((value.decode() for name, value in record.request_headers if name == b"x-ask"), "-")
        self.found[ask] = {"ask": ask, **{key: value for key, value in fields(record).items() if key in LOGGED}}

    def fault_met(self, fault: str) -> None: ...

    def tcp_opened(self, record: Any) -> None: ...

    def tcp_closed(self, record: Any, _: Any) -> None: ...


@contextlib.asynccontextmanager
async def our_sidecar(xds: Any, place: Place, lines: Lines) -> AsyncIterator[Callable[[str], Way]]:
    """One socket for each service, whose connections are taken as redirected from its VIP."""
    proxy = Proxy(spiffe_id=place.workload.spiffe_id, telemetry=lines)
    proxy.apply(parse_snapshot({**place.moved(xds), "secrets": place.certificates.snapshot(place.workload.spiffe_id)}))
    ways = {}
    loop = asyncio.get_running_loop()
    servers = []
    for service, port in SERVICES.items():
        ip, _ = place.original(Request("GET", f"http://{service}:{port}/"))
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))

        def accepted(ip: str = ip, port: int = port) -> Accepted:
            listener = proxy.outbound_listener(ip, port)
            assert listener is not None
            return Accepted(proxy, listener, Direction.OUTBOUND, (ip, port))

        servers.append(await loop.create_server(factory(accepted), sock=sock))
        ways[service] = Way(sock.getsockname()[1])
    try:
        yield ways.__getitem__
    finally:
        for server in servers:
            server.close()
        await proxy.close()


@contextlib.asynccontextmanager
async def live_envoy(xds: Any, place: Place, directory: Path, lines: Lines) -> AsyncIterator[Callable[[str], Way]]:
    file = directory / "access.log"
    async with envoy(xds, place, directory, (access_log(file),)) as way:
        yield lambda service: way(Request("GET", f"http://{service}:{SERVICES[service]}/"))
    for line in map(json.loads, file.read_text().splitlines()):
        lines.found[line["ask"]] = line


async def ask(way: Way, asked: Asked) -> Json:
    """The final answer of a connection's only request."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port, local_addr=(CLIENT, 0))
        writer.write(way.preamble + asked.text())
        try:
            interim = []
            while (head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2])[0].startswith("HTTP/1.1 1"):
                interim.append(head)
            pairs = [(name, value) for name, _, value in (line.partition(": ") for line in head[1:])]
            body = await _body(reader, asked.method, head[0].split(" ")[1], dict(pairs))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            return {"broken": repr(error)}
        finally:
            writer.close()
    kept = [(name, value) for name, value in pairs if name not in VOLATILE]
    return {"interim": interim, "line": head[0], "headers": joined(kept), "body": body}


async def _body(reader: asyncio.StreamReader, method: str, status: str, headers: dict[str, str]) -> str:
    if method == "HEAD" or status in ("204", "304"):
        return ""
    if headers.get("transfer-encoding") != "chunked":
        return (await reader.readexactly(int(headers.get("content-length", 0)))).decode("latin-1")
    out = b""
    while size := int(await reader.readline(), 16):
        out += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return out.decode("latin-1")


async def found(way: Callable[[str], Way], requests: list[Asked], told: Told) -> list[Json]:
    answers = [await ask(way(one.service), one) for one in requests]
    attempts, told.attempts = told.attempts, {}
    saw = [attempts.get(str(number), []) if LATE not in dict(one.lines)["x-script"] else [] for number, one in enumerate(requests)]
    return [{"answer": answer, "attempts": seen} for answer, seen in zip(answers, saw, strict=True)]


def logged(lines: Lines, number: int) -> Json:
    line = lines.found.get(str(number), {})
    return {key: None if line.get(key) in (None, "-") else str(line[key]) for key in LOGGED}


async def both(seed: int, certificates: Any, directory: Path) -> tuple[str, list[Asked], list[Json], list[Json]]:
    traffic = Traffic(seed)
    text = traffic.yaml()
    requests = traffic.requests(REQUESTS)
    loaded = load_text(text, "input.yaml")
    assert [str(one) for one in loaded.errors] == []
    xds = compiled(loaded.resources, TOPOLOGY, [CALLER])[CALLER]
    sides = []
    async with scripted_apps(certificates) as (places, told):
        place = Place(workload(CALLER), places, certificates)
        for which in ("ours", "envoy"):
            lines = Lines()
            async with our_sidecar(xds, place, lines) if which == "ours" else live_envoy(xds, place, directory, lines) as way:
                one = await found(way, requests, told)
            sides.append([{**each, "log": logged(lines, number)} for number, each in enumerate(one)])
    return text, requests, sides[0], sides[1]


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_requests_are_answered_as_envoy_answers_them(seed, certificates, tmp_path):
    text, requests, mine, theirs = await both(seed, certificates, tmp_path)
    for request, ours, envoys in zip(requests, mine, theirs, strict=True):
        assert ours == envoys, (request, text)
