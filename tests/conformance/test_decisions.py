"""The sidecar's tables of observed decisions (paths, hosts, matches, redirects, rewrites, hashes), asked of a live Envoy again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devmesh.runtimes.claims import claim_port
from devmesh.sidecar.config import Cluster, HashPolicy
from devmesh.sidecar.message import RequestHead
from tests.sidecar.snapshots import head, host
from tests.sidecar.test_balancing import HASHES, KEYS, RING, TABLES, by_header
from tests.sidecar.test_paths import SPELLINGS
from tests.sidecar.test_routing import AUTHORITIES, HOSTS, MATCHES, REDIRECTS, REWRITES
from tests.support import require

Json = dict[str, Any]
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
STDOUT = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
LOGGED = {"path": "%REQ(:PATH)%", "upstream": "%UPSTREAM_HOST%"}
DEAD = {"name": "dead", "type": "STATIC", "load_assignment": {"cluster_name": "dead"}}


def says(text: str, match: Json) -> Json:
    return {"match": match, "direct_response": {"status": 200, "body": {"inline_string": text}}}


def only(match: Json, row: str) -> Json:
    """The match, for the requests of one row."""
    return {**match, "headers": [*match.get("headers", ()), {"name": "x-row", "string_match": {"exact": row}}]}


def policy(found: HashPolicy) -> Json:
    name = found.name.decode()
    kinds: Json = {
        "header": {"header": {"header_name": name}},
        "query": {"query_parameter": {"name": name}},
        "cookie": {"cookie": {"name": name}},
        "source_ip": {"connection_properties": {"source_ip": True}},
    }
    return {**kinds[found.kind], "terminal": found.terminal}


def hashing(name: str, found: Cluster) -> Json:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": e.address, "port_value": e.port}}}, "load_balancing_weight": e.weight}
        for e in found.endpoints
    ]
    return {
        "name": name,
        "type": "STATIC",
        "lb_policy": found.lb_policy,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        **({"ring_hash_lb_config": dict(zip(("minimum_ring_size", "maximum_ring_size"), found.ring_hash, strict=True))} if found.lb_policy == "RING_HASH" else {"maglev_lb_config": {"table_size": found.maglev_table_size}}),
    }  # fmt: skip


def virtual_hosts() -> list[Json]:
    everything = [
        *({"match": only({"prefix": "/a"}, f"redirect{n}"), "redirect": row[1]} for n, row in enumerate(REDIRECTS)),
        *({"match": only(row[0], f"rewrite{n}"), "route": {"cluster": "dead", **row[1]}} for n, row in enumerate(REWRITES)),
        *(
            {
                "match": only({"prefix": "/"}, f"table{n}"),
                "route": {"cluster": f"table{n}", "hash_policy": [policy(HashPolicy("header", b"x-k"))]},
            }
            for n in range(len(TABLES))
        ),
        *(
            {"match": only({"prefix": "/"}, f"hash{n}"), "route": {"cluster": "table0", "hash_policy": [policy(one) for one in row[0]]}}
            for n, row in enumerate(HASHES)
        ),
        says("all", {"prefix": "/"}),
    ]
    rows = [
        host(says("yes", row[0]), says("no", {"prefix": "/"}), name=f"match{n}", domains=(f"match{n}",)) for n, row in enumerate(MATCHES)
    ]
    named = [{**one, "routes": [says(one["name"], {"prefix": "/"})]} for one in HOSTS]
    return [*named, *rows, host(*everything, name="all")]


class Asked:
    """A running Envoy."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self._port, self._process = port, process

    async def ask(self, request: RequestHead, row: str = "") -> tuple[Json, str]:
        """What it logged and what it answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        headers = [(n, b"h" if v == b"reviews:9080" else v) for n, v in request.headers]  # the tables' default, not a host of its own
        lines = [request.method + b" " + request.target + b" HTTP/1.1", *(n + b": " + v for n, v in headers)]
        writer.write(b"\r\n".join([*lines, b"x-row: " + row.encode(), b"connection: close", b"", b""]))
        async with asyncio.timeout(60):
            answer = await reader.read()
            assert self._process.stdout is not None
            log: Json = json.loads(await self._process.stdout.readline())
        writer.close()
        return log, answer.decode("latin-1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def envoy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    binary = require.envoy()
    port, held = claim_port()
    with held:  # until Envoy has bound it
        manager = {
            "@type": MANAGER,
            "stat_prefix": "decisions",
            "delayed_close_timeout": "0s",
            "normalize_path": True,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "http_filters": [ROUTER],
            "access_log": [{"name": "stdout", "typed_config": {"@type": STDOUT, "log_format": {"json_format": LOGGED}}}],
            "route_config": {"name": "t", "virtual_hosts": virtual_hosts()},
        }
        listener = {
            "name": "l",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        clusters = [DEAD, *(hashing(f"table{n}", row[0]) for n, row in enumerate(TABLES))]
        bootstrap: Path = tmp_path_factory.mktemp("envoy") / "envoy.json"
        bootstrap.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
        arguments = ["-c", str(bootstrap), "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "error"]
        with bootstrap.with_suffix(".log").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                str(binary), *arguments, "--file-flush-interval-msec", "5", stdout=subprocess.PIPE, stderr=errors, env={**os.environ}
            )
        try:
            async with asyncio.timeout(60):
                while True:
                    assert process.returncode is None, bootstrap.with_suffix(".log").read_text()
                    try:
                        (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    except OSError:
                        await asyncio.sleep(0.02)
                    else:
                        break
            yield Asked(port, process)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def body(answer: str) -> str:
    return answer.partition("\r\n\r\n")[2]


async def test_paths(envoy: Asked) -> None:
    for target, expected, why in SPELLINGS:
        if target == "*":  # only OPTIONS may ask for it
            continue
        log, _ = await envoy.ask(head(target, authority="h"))
        assert log["path"] == expected, why


async def test_virtual_hosts(envoy: Asked) -> None:
    for authority, expected, why in AUTHORITIES:
        if authority not in ("", "reviews:9080"):  # an empty Host is answered with 400 before any route
            _, answer = await envoy.ask(head(authority=authority))
            assert body(answer) == expected, (authority, why)


async def test_route_matches(envoy: Asked) -> None:
    for number, (_, request, expected, why) in enumerate(MATCHES):
        if request.authority == b"h":  # the row is about the authority itself
            continue
        request.headers[0] = (b"host", f"match{number}".encode())
        _, answer = await envoy.ask(request)
        request.headers[0] = (b"host", request.authority)
        assert body(answer) == ("yes" if expected else "no"), why


async def test_rewrites(envoy: Asked) -> None:
    for number, (_, _, target, expected, why) in enumerate(REWRITES):
        log, _ = await envoy.ask(head(target, authority="h"), f"rewrite{number}")
        assert log["path"] == expected, why


async def test_redirects(envoy: Asked) -> None:
    for number, (authority, _, expected, why) in enumerate(REDIRECTS):
        _, answer = await envoy.ask(head("/a/x?q=1", authority=authority), f"redirect{number}")
        assert f"location: {expected}\r\n" in answer, why


async def test_consistent_hashes(envoy: Asked) -> None:
    for number, (_, expected, why) in enumerate(TABLES):
        logs = [(await envoy.ask(by_header(key), f"table{number}"))[0] for key in KEYS]
        assert "".join(log["upstream"].partition(":")[0][-1] for log in logs) == expected, why


async def test_hash_policies(envoy: Asked) -> None:
    assert TABLES[0][1] == RING, "the rows below are about the first table"
    for number, (_, request_of, expected, why) in enumerate(HASHES):
        logs = [(await envoy.ask(request_of(key), f"hash{number}"))[0] for key in KEYS]
        assert "".join(log["upstream"].partition(":")[0][-1] for log in logs) == expected, why
