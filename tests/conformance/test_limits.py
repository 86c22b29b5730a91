"""Limits of connections and retries, as our sidecar and a live Envoy keep them: how it ends, and the flag that is logged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.envoy_mesh import Caller, port_of
from tests.conformance.test_side_by_side import TYPE, live_envoy_with, our_sidecar_with

Json = dict[str, Any]
FORMAT = {"json_format": {"response_flags": "%RESPONSE_FLAGS%", "upstream_request_attempt_count": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}}
STDOUT = [{"name": "stdout", "typed_config": {"@type": f"{TYPE}.access_loggers.stream.v3.StdoutAccessLog", "log_format": FORMAT}}]
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
OK, FAILED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
RETRIES = {"retry_policy": {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}}
SECONDS = 5


class App:
    """Answers `/ok` and CONNECT to `open:1`; fails the first time that it is asked for anything else, and then answers, `/held...` when `let_go` is set."""

    def __init__(self) -> None:
        self.let_go, self.held, self.ends = asyncio.Event(), asyncio.Event(), asyncio.Queue[str]()
        self._seen: set[str] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return port_of(self._server.sockets[0])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
                writer.write(await self._answer(path))
        self.ends.put_nowait("closed")
        writer.close()

    async def _answer(self, path: str) -> bytes:
        if path not in ("/ok", "open:1") and path not in self._seen:
            self._seen.add(path)
            return FAILED
        if path.startswith("/held"):
            self.held.set()
            await self.let_go.wait()
        return OK

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.let_go.set()
        await asyncio.gather(*self._tasks)


def resources(listening: int, port: int, name: str, config: Json, cluster: Json) -> Json:
    hosts = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]
    assignment = {"cluster_name": "app", "endpoints": [{"lb_endpoints": hosts}]}
    network = {"name": f"envoy.filters.network.{name}", "typed_config": {"stat_prefix": "s", "access_log": STDOUT, **config}}
    listener = {
        "name": f"0.0.0.0_{listening}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": listening}},
        "filter_chains": [{"filters": [network]}],
    }
    return {"listeners": [listener], "clusters": [{"name": "app", "type": "STATIC", "load_assignment": assignment, **cluster}]}


def tcp(**limits: Any) -> tuple[str, Json, Json]:
    return "tcp_proxy", {"@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "app", **limits}, {}


def http(cluster: Json, **action: Any) -> tuple[str, Json, Json]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s", **action}}
    return (
        "http_connection_manager",
        {
            "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        },
        cluster,
    )


def lasting(duration: str) -> Json:
    common = {"common_http_protocol_options": {"max_connection_duration": duration}, "explicit_http_config": {"http_protocol_options": {}}}
    return {"typed_extension_protocol_options": {HTTP: {"@type": f"type.googleapis.com/{HTTP}", **common}}}


def breakers(**limits: Any) -> Json:
    return {"circuit_breakers": {"thresholds": [limits]}}


async def get(caller: Caller, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
    finally:
        writer.close()


async def _ends(caller: Caller, app: App) -> list[object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    writer.write(b"GET /ok HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(len(OK)) == OK
    rest = await reader.read()
    writer.close()
    return [rest, await app.ends.get(), (await caller.log())["response_flags"]]


def _refused(configuration: tuple[str, Json, Json]) -> tuple[str, Json, Json]:
    """To a port where nobody listens, since it is no port that anybody can be given."""
    hosts = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]
    name, config, _ = configuration
    return name, config, {"load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": hosts}]}}


async def _not_there(caller: Caller, app: App) -> list[object]:
    del app
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    rest = await reader.read()
    writer.close()
    return [rest, (await caller.log())["response_flags"]]


async def _tunnelled(caller: Caller, app: App) -> list[object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    writer.write(b"GET /ok HTTP/1.1\r\n\r\n")
    answered = await reader.readexactly(len(OK))
    writer.close()
    return [answered, (await caller.log())["response_flags"], await app.ends.get()]


async def _served(caller: Caller, app: App) -> list[object]:
    """An idle connection upstream is closed, a busy one when its answer is there."""
    first = await get(caller, "/ok"), await app.ends.get()
    await get(caller, "/held")
    held = asyncio.create_task(get(caller, "/held"))
    await app.held.wait()
    await asyncio.sleep(1)
    app.let_go.set()
    return [first, await held, await app.ends.get()]


async def _one_retry(caller: Caller, app: App) -> list[object]:
    """A retry that is under way is the only one that there may be."""
    held = asyncio.create_task(get(caller, "/held"))
    await app.held.wait()
    refused = await get(caller, "/second"), await caller.log()
    app.let_go.set()
    return [refused, await held, await caller.log(), await get(caller, "/third"), await caller.log()]


async def _budget(caller: Caller, app: App) -> list[object]:
    """Half of what began within the interval may be retries: none of one request, one of two."""
    del app
    return [(await get(caller, f"/{name}"), await caller.log()) for name in ("first", "second")]


SCENARIOS: dict[str, tuple[tuple[str, Json, Json], Callable[[Caller, App], Awaitable[list[object]]]]] = {
    "TCP idle": (tcp(idle_timeout="0.3s"), _ends),
    "TCP lasting": (tcp(max_downstream_connection_duration="0.3s"), _ends),
    "TCP refused": (_refused(tcp()), _not_there),
    "tunnel": (tcp(tunneling_config={"hostname": "open:1"}), _tunnelled),
    "HTTP lasting": (http(lasting("0.5s")), _served),
    "max_retries": (http(breakers(max_retries=1), **RETRIES), _one_retry),
    "retry budget": (http(breakers(retry_budget={"budget_percent": {"value": 10}, "min_retry_concurrency": 1}), **RETRIES), _one_retry),
    "retry budget of an interval": (
        http(
            breakers(retry_budget={"budget_percent": {"value": 50}, "min_retry_concurrency": 0, "budget_interval": "60s"}),
            **RETRIES,
        ),
        _budget,
    ),
}


@contextlib.asynccontextmanager
async def running(which: str, configuration: tuple[str, Json, Json], directory: Path) -> AsyncIterator[tuple[Caller, App]]:
    app = App()
    port = await app.start()

    def at(listening: int) -> Json:
        return resources(listening, port, *configuration)

    try:
        async with our_sidecar_with(at) if which == "ours" else live_envoy_with(at, directory) as caller, asyncio.timeout(SECONDS):
            if which == "envoy" and configuration[0] == "tcp_proxy":  # who asked whether it listens
                await caller.log()
                if not configuration[2]:
                    await app.ends.get()
            yield caller, app
    finally:
        await app.stop()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_both_keep_a_limit_alike(name: str, tmp_path: Path) -> None:
    configuration, scenario = SCENARIOS[name]
    found = []
    for which in ("ours", "envoy"):
        async with running(which, configuration, tmp_path) as (caller, app):
            found.append([_comparable(one) for one in await scenario(caller, app)])
    assert found[0] == found[1]


def _comparable(value: Any) -> Any:
    """Of a log only what both were asked for."""
    if isinstance(value, tuple):
        return tuple(_comparable(one) for one in value)
    return {key: str(value[key]) for key in FORMAT["json_format"]} if isinstance(value, dict) else value
