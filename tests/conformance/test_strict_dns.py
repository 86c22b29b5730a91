"""Endpoints that are names, run by our sidecar and by a live Envoy, which asks a name server of ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from devmesh.sidecar.dns import NameServer
from tests.conformance.envoy_mesh import Caller, port_of
from tests.conformance.test_side_by_side import SECONDS, TYPE, live_envoy_with, our_sidecar_with

Json = dict[str, Any]
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
NAMES = {"three.example": ADDRESSES, "one.example": ADDRESSES[:1]}  # what else is asked for does not exist


async def lookup(host: str) -> tuple[str, ...]:
    return NAMES.get(host, ())


def sockets_of_one_port() -> list[socket.socket]:
    while True:
        found = [socket.create_server((ADDRESSES[0], 0))]
        with contextlib.suppress(OSError):
            return [*found, *(socket.create_server((one, port_of(found[0]))) for one in ADDRESSES[1:])]
        found[0].close()


@contextlib.asynccontextmanager
async def apps() -> AsyncIterator[int]:
    """At one port of each address; each answers with its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" + writer.get_extra_info("sockname")[0].encode())
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        sockets = sockets_of_one_port()
        for sock in sockets:
            stack.callback((await asyncio.start_server(serve, sock=sock)).close)
        yield port_of(sockets[0])


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[int]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESSES[0], 0))
    server = NameServer(lambda: NAMES, {}, list)
    await server.listen(sock)
    try:
        yield port_of(sock)
    finally:
        await server.close()


def resources(app: int, resolver: int, listening: int) -> Json:
    def named(name: str, *hosts: tuple[str, int]) -> Json:
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": app}}}, "load_balancing_weight": weight}
            for host, weight in hosts
        ]
        at = {"socket_address": {"address": ADDRESSES[0], "port_value": resolver}}
        cares = {"@type": f"{TYPE}.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "resolvers": [at]}
        return {
            "name": name,
            "type": "STRICT_DNS",
            "dns_lookup_family": "V4_ONLY",
            "dns_refresh_rate": "60s",
            "lb_policy": "ROUND_ROBIN",
            "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": cares},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        }

    clusters = [
        named("three", ("three.example", 1)),
        named("weighted", ("127.0.0.2", 4), ("one.example", 1)),
        named("none", ("none.cluster.local", 1)),
    ]
    routes = [{"match": {"prefix": f"/{one['name']}"}, "route": {"cluster": one["name"]}} for one in clusters]
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
    }
    listener = {
        "name": f"0.0.0.0_{listening}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": listening}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {"listeners": [listener], "clusters": clusters}


async def answers(caller: Caller, path: str, times: int) -> Counter[str]:
    found: Counter[str] = Counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    async with asyncio.timeout(SECONDS):
        for _ in range(times):
            writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.partition(": ")[2]) for line in head.split("\r\n") if line.startswith("content-length"))
            found[f"{head.split(' ')[1]} {(await reader.readexactly(length)).decode()}"] += 1
    writer.close()
    return found


@pytest.mark.parametrize("row", ["ours", "Envoy"])
async def test_all_addresses_of_a_name_are_called_and_a_name_without_any_is_no_healthy_upstream(row, tmp_path):
    async with apps() as app, name_server() as resolver, contextlib.AsyncExitStack() as stack:

        def given(listening: int) -> Json:
            return resources(app, resolver, listening)

        running = our_sidecar_with(given, lookup=lookup) if row == "ours" else live_envoy_with(given, tmp_path)
        caller = await stack.enter_async_context(running)
        assert await answers(caller, "/three", 9) == {f"200 {one}": 3 for one in ADDRESSES}
        assert await answers(caller, "/weighted", 10) == {"200 127.0.0.1": 2, "200 127.0.0.2": 8}
        assert await answers(caller, "/none", 1) == {"503 no healthy upstream": 1}
