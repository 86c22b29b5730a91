"""A sidecar in process between a client and an app, both of which speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from devmesh.sidecar.config import HttpManager, TcpProxy
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import Record
from tests.sidecar import snapshots
from tests.support.waiting import LIMIT, until

Json = dict[str, Any]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def free_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def port_of(sock: Any) -> int:
    return int(sock.getsockname()[1])


def refusing_port() -> tuple[socket.socket, int]:
    """Bound and not listening: a connection to it is refused for as long as the socket lives."""
    sock = free_socket()
    return sock, port_of(sock)


@dataclass
class Message:
    """A response as read; `trailers` are raw lines."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    return lines[0], [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:])]


async def read_body(reader: asyncio.StreamReader, headers: list[tuple[str, str]]) -> tuple[bytes, list[str]]:
    """The body of a request, or of a response that is no answer to HEAD."""
    named = dict(headers)
    if named.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(named.get("content-length", 0))), []
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers.append(line.decode().strip())
    return body, trailers


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> None:
        length = [f"content-length: {len(body)}"] if body else []
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", "host: a", *headers, *length, "", ""]).encode() + body)

    async def answer(self, *, head: bool = False) -> Message:
        async with asyncio.timeout(LIMIT):
            line, headers = await read_head(self.reader)
            status = int(line.split(" ")[1])
            if head or status < 200 or status in (204, 304):
                return Message(status, headers)
            return Message(status, headers, *await read_body(self.reader, headers))

    async def ask(self, target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> Message:
        self.get(target, *headers, method=method, body=body)
        return await self.answer(head=method == "HEAD")

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        async with asyncio.timeout(LIMIT):
            return await self.reader.read()

    async def closed(self) -> bool:
        try:
            return await self.rest() == b""
        except ConnectionResetError:
            return True

    def leave(self) -> None:
        """Without a FIN: what is in flight is lost."""
        self.writer.transport.abort()


class Records:
    """A recorder that tests wait on."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Record] = asyncio.Queue()
        self.opened = 0
        self.met: list[str] = []

    def record(self, record: Record, manager: HttpManager) -> None:
        self._queue.put_nowait(record)

    def fault_met(self, fault: str) -> None:
        self.met.append(fault)

    def tcp_opened(self, record: Record) -> None:
        self.opened += 1

    def tcp_closed(self, record: Record, config: TcpProxy) -> None:
        self._queue.put_nowait(record)

    async def next(self) -> Record:
        async with asyncio.timeout(LIMIT):
            return await self._queue.get()

    @property
    def empty(self) -> bool:
        return self._queue.empty()


class App:
    """A server that runs the test's handler for every connection, and counts."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def app(handler: Handler) -> AsyncIterator[App]:
    one = App(handler)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = port_of(server.sockets[0])
    try:
        yield one
    finally:
        server.close()
        one.end()
        await until(lambda: not one._tasks)


def answering(answer: bytes | Callable[[int, str], bytes] = OK, seen: list[tuple[str, dict[str, str], bytes]] | None = None) -> Handler:
    """Answers every request with `answer`, or with what it gives for (number, request line)."""
    number = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        while True:
            line, headers = await read_head(reader)
            body, _ = await read_body(reader, headers)
            if seen is not None:
                seen.append((line, dict(headers), body))
            number += 1
            data = answer(number, line) if callable(answer) else answer
            if not data:
                return
            writer.write(data)
            await writer.drain()

    return handler


@dataclass
class Sidecar:
    proxy: Proxy
    port: int
    records: Records
    _clients: list[Client] = field(default_factory=list)

    async def connect(self, **options: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=16 * 1024 * 1024, **options))
        self._clients.append(client)
        return client

    async def ask(self, target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> Message:
        return await (await self.connect()).ask(target, *headers, method=method, body=body)

    async def close(self) -> None:
        await self.proxy.close()
        for client in self._clients:
            client.leave()


@contextlib.asynccontextmanager
async def sidecar(
    snapshot: Json, *, role: str = "inbound", original: tuple[str, int] | None = None, **options: Any
) -> AsyncIterator[Sidecar]:
    """Started; every exchange must be over when the test ends, and nothing counted as under way."""
    sock = free_socket()
    records = Records()
    errors: list[Json] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    proxy = Proxy(telemetry=records, **{"now": asyncio.get_running_loop().time, **options})
    proxy.apply(parse_snapshot({"version": "1", **snapshot}))
    await proxy.listen([SocketSpec(role, "127.0.0.1", port_of(sock), sock, original)])
    one = Sidecar(proxy, port_of(sock), records)
    try:
        yield one
        await until(lambda: not proxy.upstreams._tasks)
    finally:
        await one.close()
        await until(lambda: not proxy.connections)
    assert not errors, errors
    assert not proxy.exchanges
    loads = [(name, load.connections, load.pending, load.requests, load.retries) for name, load in proxy.upstreams._loads.items()]
    assert all(load[1:] == (0, 0, 0, 0) for load in loads), loads
    assert not any(load.requests for load in proxy.upstreams._active.values())


def one_route(
    *ports: int, action: Json | None = None, cluster: Json | None = None, manager: Json | None = None, host: Json | None = None
) -> Json:
    """One HTTP listener of an inbound sidecar; everything goes to the cluster `c` of these ports."""
    route = snapshots.route(route={"cluster": "c", "timeout": "0s", **(action or {})})
    table = snapshots.table(snapshots.host(route, **(host or {})))
    listener = snapshots.listener(snapshots.http_chain(route_config=table, **(manager or {})), traffic_direction="INBOUND")
    endpoints = tuple(("127.0.0.1", port) for port in ports)
    return {"listeners": [listener], "clusters": [snapshots.cluster("c", endpoints, **(cluster or {}))]}
