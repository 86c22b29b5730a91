"""Our sidecar and a live Envoy make the same of bytes that are nearly HTTP/1.1, a client's and an app's. `DEVMESH_SEEDS=1000-2000` asks for others."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.conformance.envoy_mesh import port_of
from tests.conformance.random_bytes import Bytes
from tests.conformance.test_side_by_side import TYPE, live_envoy_with, our_sidecar_with
from tests.support.draws import seeds

Json = dict[str, Any]
SEEDS = seeds("0-59")
SECONDS = 20
# Ends the connection, if it is one request that came before it.
SENTINEL = b"GET /sentinel HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
VOLATILE = re.compile(rb"(date: .* GMT|x-envoy-upstream-service-time: \d+|x-request-id: .*|x-envoy-expected-rq-timeout-ms: .*)")

REFUSED = re.compile(rb"HTTP/1.1 (400|426|431|501) ")  # which one it is depends on which of several faults is seen first


def messages(data: bytes) -> list[Any]:
    """Heads, their lines in no order, and bodies without their chunks; what is no message stays as it is."""
    out: list[Any] = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        if not end:
            return [*out, head]
        lines = [line for line in head.split(b"\r\n")[1:] if not VOLATILE.fullmatch(line)]
        named = {name: value for name, _, value in (line.partition(b": ") for line in lines)}
        body, data = _body(head.split(b" ")[1][:3], named, data)
        line = head.split(b"\r\n")[0]
        refused = REFUSED.match(line) is not None and b"connection: close" in lines
        out.append("refused" if refused else (line, sorted(lines), body))
    return out


def _body(status: bytes, named: dict[bytes, bytes], data: bytes) -> tuple[Any, bytes]:
    if status[:1] == b"1" or status in (b"204", b"304"):
        return b"", data
    if b"chunked" in named.get(b"transfer-encoding", b""):
        return _chunks(data)
    length = named.get(b"content-length", b"")
    size = int(length) if length.isdigit() else len(data)  # to the end of the connection
    return data[:size], data[size:]


def _chunks(data: bytes) -> tuple[Any, bytes]:
    out = b""
    while (match := re.match(rb"([0-9a-fA-F]+)[^\r]*\r\n", data)) is not None:
        size = int(match[1], 16)
        if not size:
            _, end, rest = data[match.end() - 2 :].partition(b"\r\n\r\n")
            return (out, b"whole" if end else b"cut off"), rest
        out += data[match.end() : match.end() + size]
        data = data[match.end() + size + 2 :]
    return (out, b"cut off"), b""


class App:
    """Answers every request that is whole, and keeps what it got; `/answer/N` as it is told, by bytes after which it closes."""

    def __init__(self, answers: list[bytes]) -> None:
        self.got: list[Any] = []
        self._answers = answers
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return port_of(self._server.sockets[0])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        data = b""
        while not _whole(data):
            more = await reader.read(65536)
            if not more:
                return False
            data += more
        if b" /sentinel " not in data:
            self.got += messages(data)
        asked = re.match(rb"\S+ /answer/(\d+) ", data)
        writer.write(self._answers[int(asked[1])] if asked else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        return asked is None

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if b"\r\ntransfer-encoding: chunked" in head:
        found, _ = _chunks(body)
        return bool(found[1] == b"whole")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    return len(body) >= (int(length[1]) if length else 0)


def resources(listening: int, port: int, edits: Json) -> Json:
    """As Istio configures it, but for how long a request may take, and how long a refused one's connection lasts; `edits` are the route's."""
    hosts = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}, **edits}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h",
        "request_timeout": "0.2s",
        "delayed_close_timeout": "0.1s",
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "proxy_100_continue": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
    }
    listener = {
        "name": f"0.0.0.0_{listening}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": listening}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    cluster = {"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": hosts}]}}
    return {"listeners": [listener], "clusters": [cluster]}


async def said(port: int, data: bytes) -> tuple[list[Any], str]:
    """All that comes until the connection ends, and how it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    got = b""
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(data)
            while more := await reader.read(65536):
                got += more
        how = "closed"
    except ConnectionError:
        how = "closed"  # a reset, after which what was read is what counts
    except TimeoutError:
        how = "open"
    finally:
        writer.close()
    found = messages(got)
    # Of an answer that is cut off more or less has come; that it has an end nobody may believe.
    while found and isinstance(found[-1], tuple) and (found[-1][2][1:] == (b"cut off",) or found[-1][0].startswith(b"HTTP/1.1 1")):
        found.pop()
    return found, how


@contextlib.asynccontextmanager
async def running(which: str, directory: Path, answers: list[bytes], edits: Json) -> AsyncIterator[tuple[int, App]]:
    app = App(answers)
    port = await app.start()
    made: Callable[[int], Json] = lambda listening: resources(listening, port, edits)  # noqa: E731 - the two take one
    try:
        async with our_sidecar_with(made) if which == "ours" else live_envoy_with(made, directory) as caller:
            yield caller.port, app
    finally:
        await app.stop()


async def heard(which: str, directory: Path, sent: list[bytes], answers: list[bytes], edits: Json | None = None) -> list[Any]:
    out = []
    async with running(which, directory, answers, edits or {}) as (port, app):
        for data in sent:
            answered = await said(port, data if answers else data + SENTINEL)
            out.append({"answered": answered, "app": app.got})
            app.got = []
    return out


def requests() -> list[bytes]:
    return [Bytes(seed).request() for seed in SEEDS]


def told() -> tuple[list[bytes], list[bytes]]:
    """Who asks, and the answers."""
    answers = [Bytes(seed).answer() for seed in SEEDS]
    asking = [
        f"{'HEAD' if number % 7 == 6 else 'GET'} /answer/{number} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
        for number in range(len(answers))
    ]
    return asking, answers


async def test_requests_that_are_nearly_http_are_taken_alike(tmp_path: Path) -> None:
    sent = requests()
    ours, envoys = [await heard(which, tmp_path, sent, []) for which in ("ours", "envoy")]
    for data, one, other in zip(sent, ours, envoys, strict=True):
        assert one == other, data


async def test_answers_that_are_nearly_http_are_taken_alike(tmp_path: Path) -> None:
    asking, answers = told()
    ours, envoys = [await heard(which, tmp_path, asking, answers) for which in ("ours", "envoy")]
    for data, one, other in zip(answers, ours, envoys, strict=True):
        assert one == other, data
