"""A sidecar between a scripted client and scripted endpoints: no socket, and no time but what a test lets pass (virtual_time)."""

from __future__ import annotations

import asyncio
import errno
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from devmesh.sidecar.config import HttpManager, TcpProxy
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.downstream import HttpConnection
from devmesh.sidecar.exchange import Stream
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import Direction, Record
from devmesh.sidecar.seam import Handler
from tests.support.virtual_time import now, settled

Json = dict[str, Any]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Transport:
    """What was written to it, and what became of it; `say` is the other side."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.written = b""
        self.ended = ""  # closed | aborted
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return bool(self.ended)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 40000), "peername": ("127.0.0.1", 50000)}.get(name, default)

    async def say(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await settled()

    async def leave(self) -> None:
        self.abort()
        await settled()

    def taken(self) -> bytes:
        """What was written since the last time."""
        written, self.written = self.written, b""
        return written


class Endpoints(Dialer):
    """Connections by port: refused where a test says so, kept waiting while `slow` has the port, else made at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.made: dict[int, list[Transport]] = defaultdict(list)
        self.refusing: set[int] = set()
        self.slow: dict[int, asyncio.Event] = {}

    async def connect(
        self, make: Callable[[], Handler], host: str, port: int, bind: str | None, *, original: bool
    ) -> asyncio.BaseTransport:
        del host, bind, original
        self.asked.append(port)
        if port in self.slow:
            await self.slow[port].wait()
        if port in self.refusing:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "")
        transport = Transport()
        self.made[port].append(transport)
        transport.protocol = make()
        transport.protocol.connection_made(transport)
        return transport

    def __getitem__(self, port: int) -> Transport:
        """The last connection to the port."""
        return self.made[port][-1]


class Told:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.met: list[str] = []

    def record(self, record: Record, manager: HttpManager) -> None:
        del manager
        self.records.append(record)

    def tcp_opened(self, record: Record) -> None: ...

    def tcp_closed(self, record: Record, config: TcpProxy) -> None: ...

    def fault_met(self, fault: str) -> None:
        self.met.append(fault)


class Scripted:
    """One sidecar with this snapshot; clients come to the HTTP manager of its listener `l`."""

    def __init__(self, snapshot: Json, direction: Direction = Direction.OUTBOUND) -> None:
        self.endpoints, self.told = Endpoints(), Told()
        self.proxy = Proxy(telemetry=self.told, dialer=self.endpoints, now=now, rng=random.Random(1))
        self.proxy.apply(parse_snapshot({"version": "1", **snapshot}))
        self._direction = direction

    def client(self) -> Transport:
        transport = Transport()
        chain = self.proxy.config.listeners["l"].chains[0]
        assert isinstance(chain.network, HttpManager)
        transport.protocol = HttpConnection(
            self.proxy, chain.network, Stream(self._direction, ("10.0.0.1", 80), "10.9.9.9:1", "10.0.0.1:80")
        )
        transport.protocol.connection_made(transport)
        return transport

    async def get(self, target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> Transport:
        """A request on a connection of its own, up to where it waits for somebody."""
        client = self.client()
        length = [f"content-length: {len(body)}"] if body else []
        await client.say("\r\n".join([f"{method} {target} HTTP/1.1", "host: a", *headers, *length, "", ""]).encode() + body)
        return client

    @property
    def record(self) -> Record:
        return self.told.records[-1]

    async def close(self) -> None:
        """Nothing may be left under way."""
        await self.proxy.close()
        await settled()
        assert not self.proxy.exchanges
        loads = self.proxy.upstreams._loads.values()
        assert all((one.connections, one.pending, one.requests, one.retries) == (0, 0, 0, 0) for one in loads)
        assert not any(load.requests for load in self.proxy.upstreams._active.values())
