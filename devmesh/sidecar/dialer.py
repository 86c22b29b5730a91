"""How a connection to an address is made: by an ordinary connect, or through the init of our app's pod (devmesh/pods)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from devmesh.pods.wire import MAX_DATAGRAM, MAX_ITEMS, decode_answers, encode_requests, receive
from devmesh.sidecar.seam import Handler, factory

Address = tuple[str, int]
WORKLOADS = "127.7."  # where a local runtime's workloads live


def unwatched(host: str, port: int) -> None:
    """What a dialer tells of failures as long as nobody asked."""


class Dialer:
    """Ordinary connects. `shift`: a workload's ports below the first number are that much higher on this machine.

    `probe_from`: where a probe comes from in a namespace whose rules would lead it to our own inbound port, as if the app called itself.
    `elsewhere`: addresses that stand for another, port by port.
    """

    def __init__(
        self, shift: tuple[int, int] = (0, 0), probe_from: str | None = None, elsewhere: Mapping[Address, Address] | None = None
    ) -> None:
        self._below, self._by = shift
        self._probe_from = probe_from
        self._elsewhere = elsewhere or {}
        # Told of every connection that failed: who watches the app learns that it is gone without waiting for the next look.
        self.missed: Callable[[str, int], None] = unwatched

    async def connect(
        self, make: Callable[[], Handler], host: str, port: int, bind: str | None, *, original: bool
    ) -> asyncio.BaseTransport:
        """Connect and hand over to what `make` gives. `original`: to a destination as the app or its caller named it.

        `bind` is the source address (upstream_bind_config), IPv4. Raises OSError.
        """
        del original
        host, port = self._elsewhere.get((host, port), (host, port))
        if port < self._below and host.startswith(WORKLOADS):
            port += self._by
        local = (bind, 0) if bind and ":" not in host else None
        return (await asyncio.get_running_loop().create_connection(factory(make), host, port, local_addr=local))[0]

    async def probe(self, host: str, port: int) -> None:
        """Connect and close again. Raises OSError."""
        local = (self._probe_from, 0) if self._probe_from and ":" not in host else None
        _, writer = await asyncio.open_connection(host, port, local_addr=local)
        writer.close()

    def close(self) -> None:
        """Give up what waits."""


class PodDialer(Dialer):
    """Our own app through its pod's init, and the addresses that mean something of the host's."""

    def __init__(self, channel: socket.socket, address: str, aliases: Mapping[str, str], shift: tuple[int, int] = (0, 0)) -> None:
        super().__init__(shift)
        self._address, self._aliases = address, aliases
        self._connector = PodConnector(channel)

    async def connect(
        self, make: Callable[[], Handler], host: str, port: int, bind: str | None, *, original: bool
    ) -> asyncio.BaseTransport:
        """As Dialer's; the init binds Istio's 127.0.0.6 by itself."""
        if original and host == self._address:
            sock = await self._connector.connect(port)
            return (await asyncio.get_running_loop().create_connection(factory(make), sock=sock))[0]
        return await super().connect(make, self._aliases.get(host, host), port, bind, original=original)

    async def probe(self, host: str, port: int) -> None:
        if host == self._address:
            (await self._connector.connect(port)).close()
        else:
            await super().probe(host, port)

    def close(self) -> None:
        self._connector.close()


class PodConnector:
    """Asks the init for connections, all requests of one loop iteration in one datagram (devmesh/pods/wire.py)."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(False)  # noqa: FBT003 - socket's own signature
        # A predecessor's answers may still come: its ids must mean nothing to us.
        self._next = int.from_bytes(os.urandom(4), "big")
        self._waiting: dict[int, asyncio.Future[socket.socket]] = {}
        self._queue: list[tuple[int, int]] = []
        self._reading = False

    async def connect(self, port: int) -> socket.socket:
        """Give a socket that reaches this port of the pod's own address. Raises the OSError that the init met inside."""
        loop = asyncio.get_running_loop()
        if not self._reading:
            self._reading = True
            loop.add_reader(self._channel.fileno(), self._read)
        self._next = (self._next + 1) % 2**32
        identity = self._next
        answer: asyncio.Future[socket.socket] = loop.create_future()
        self._waiting[identity] = answer
        if not self._queue:
            loop.call_soon(self._flush)
        self._queue.append((identity, port))
        try:
            return await answer
        finally:
            self._waiting.pop(identity, None)

    def _flush(self) -> None:
        while self._queue:
            try:
                self._channel.send(encode_requests(self._queue[:MAX_ITEMS]))
            except BlockingIOError:  # the init is behind: after what it answers next
                asyncio.get_running_loop().call_later(0.001, self._flush)
                return
            except OSError as error:
                self._fail(error)
                return
            del self._queue[:MAX_ITEMS]

    def _fail(self, error: OSError) -> None:
        """The init is gone, and with it the app: as if nothing listened."""
        self._queue.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionRefusedError(error.errno, "the app's pod is gone"))

    def _read(self) -> None:
        received = receive(self._channel, MAX_DATAGRAM, MAX_ITEMS)
        if received is None:
            return
        data, fds = received
        if not data:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._fail(ConnectionRefusedError(111, ""))
            return
        descriptors = iter(fds)
        for identity, code in decode_answers(data):
            self._settle(identity, code, socket.socket(fileno=next(descriptors)) if code == 0 else None)

    def _settle(self, identity: int, code: int, sock: socket.socket | None) -> None:
        answer = self._waiting.get(identity)
        if answer is None or answer.done():
            if sock is not None:
                sock.close()  # nobody waits any longer
        elif sock is not None:
            answer.set_result(sock)
        else:
            answer.set_exception(OSError(code, os.strerror(code)))

    def close(self) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._fail(ConnectionRefusedError(111, ""))
        self._channel.close()
