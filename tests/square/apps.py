"""The apps of the square: an echo server for every workload, at loopback addresses that stand for the topology's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from devmesh.config.topology import Topology
from tests.square.certificates import Certificates
from tests.square.compilers import WITH_EGRESS
from tests.square.compilers import topology as topology_of

# Every port that a service or a case names; an app answers on all of them, as inbound passthrough needs it.
PORTS = (6000, 7777, 8000, 9080)
# Request headers that differ by chance, or that only one of the two sends (docs/differences.md).
VOLATILE_REQUEST = frozenset(
    {
        "x-request-id", "grpc-timeout", "traceparent", "tracestate", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-envoy-expected-rq-timeout-ms",
        "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-parentspanid", "content-length", "host-port",
    }
)  # fmt: skip


def topology() -> Topology:
    """Everybody, the egress gateway too."""
    return topology_of(WITH_EGRESS)


class Places:
    """127.a.b.0/24, where a and b follow from this process: 10.0.0.n is at .n, the VIP 10.96.0.k at .100+k. So ports stay as they are."""

    def __init__(self) -> None:
        number = os.getpid()
        self._block = f"127.{64 + (number >> 8) % 64}.{number % 256}"
        workloads = {workload.ip: self._at(workload.ip, 0) for workload in topology().workloads}
        self.of = workloads | {service.cluster_ip: self._at(service.cluster_ip, 100) for service in topology().services}

    def _at(self, address: str, offset: int) -> str:
        return f"{self._block}.{int(address.rpartition('.')[2]) + offset}"


@dataclass
class Echo:
    """One workload's app: says what it got, over TLS too; `/status/N` answers N."""

    workload: str
    address: str
    tls: dict[bool, ssl.SSLContext]  # by whether a server name of the mesh was asked for
    hits: list[dict[str, Any]] = field(default_factory=list)
    _listening: list[socket.socket] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _asked: WeakKeyDictionary[Any, str | None] = field(default_factory=WeakKeyDictionary)

    def start(self) -> None:
        self.tls[False].sni_callback = self._choose_certificate
        for port in PORTS:
            sock = socket.create_server((self.address, port))
            sock.setblocking(False)
            self._listening.append(sock)
            self._run(self._accept(sock))

    def _choose_certificate(self, session: Any, name: str | None, _: ssl.SSLContext) -> None:
        self._asked[session] = name
        session.context = self.tls[(name or "").startswith("outbound_")]

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"echo {self.workload}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._listening:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._run(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            first = await _peek(sock)
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self.tls[False] if first == b"\x16" else None)
        except OSError:  # the handshake failed: the caller's answer says so
            sock.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        pairs = [line.partition(": ") for line in lines[1:] if line]
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        seen = {
            "workload": self.workload,
            "method": method,
            "target": target,
            "headers": {k: v for k, v in headers.items() if k not in VOLATILE_REQUEST},
            "body": body.decode(),
            "tls": self._tls_of(writer),
        }
        self.hits.append(seen)
        status = int(target.split("/status/")[1][:3]) if "/status/" in target else 200
        payload = b"" if method == "HEAD" else json.dumps(seen).encode()
        length = "" if method == "HEAD" else f"content-length: {len(payload)}\r\n"
        writer.write(f"HTTP/1.1 {status} X\r\n{length}x-app: {self.workload}\r\n\r\n".encode() + payload)
        await writer.drain()

    def _tls_of(self, writer: asyncio.StreamWriter) -> dict[str, Any] | None:
        """Whom the caller asked for and who it proved to be; which ALPN it offers is istio.alpn's work, which a stock Envoy lacks."""
        session = writer.get_extra_info("ssl_object")
        if session is None:
            return None
        names: Any = (session.getpeercert() or {}).get("subjectAltName", ())
        return {"sni": self._asked.get(session), "client": [value for _, value in names]}


async def _peek(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(sock)
    return sock.recv(1, socket.MSG_PEEK)


@contextlib.asynccontextmanager
async def apps(certificates: Certificates) -> AsyncIterator[Places]:
    """An echo server for every workload, and one that stands for every VIP, as for what a passthrough reaches."""
    places = Places()
    echoes = [Echo(workload.name, places.of[workload.ip], certificates.app(workload.spiffe_id)) for workload in topology().workloads]
    echoes += [
        Echo(f"{service.name}-vip", places.of[service.cluster_ip], certificates.app(topology().workloads[0].spiffe_id))
        for service in topology().services
    ]
    for echo in echoes:
        echo.start()
    try:
        yield places
    finally:
        for echo in echoes:
            await echo.stop()
