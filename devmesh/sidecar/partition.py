"""A partition: silence between this workload and some addresses, which `devmesh fault inject --partition` puts into the configuration.

As on a network that drops every packet: a connect waits until the cluster's connect_timeout, an established connection stands still with
what both ends write, nothing is refused and nothing closed. What still waits when it heals goes through, as TCP's retransmissions would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from devmesh.sidecar.seam import Handler, as_protocol

FULL = 64 * 1024  # bytes that wait to be written: asyncio's own high-water mark, in the place of a send window that stays closed
FEW = 16  # connections to an address before those that are over are looked for


class Partitions:
    """Every connection that we make begins here; `cut` names the fault between us and an address. `met` is told of each hit."""

    def __init__(self) -> None:
        self.cut: Mapping[str, str] = {}
        self.met: Callable[[str], None] = lambda _: None
        self._changed = asyncio.Event()
        self._open: dict[str, list[asyncio.Transport]] = {}
        self._many: dict[str, int] = {}
        self._held: dict[str, list[Held]] = {}

    async def passable(self, address: str) -> None:
        """Return when a connect would be answered: at once, or when the address is no longer cut off."""
        if address in self.cut:
            self.met(self.cut[address])
        while address in self.cut:
            await self._changed.wait()

    def first(self, address: str, inner: Handler) -> Handler:
        """What a connection to this address is handed to when it is made; it hands over to `inner`."""
        return _First(self, address, inner)

    def joined(self, address: str, transport: asyncio.Transport, inner: Handler) -> None:
        transport.set_protocol(as_protocol(inner))
        self._remember(address, transport)
        if address in self.cut:  # since it was asked for
            inner.connection_made(self._hold(address, transport, inner))  # type: ignore[arg-type] # duck-typed transport
        else:
            inner.connection_made(transport)

    def _remember(self, address: str, transport: asyncio.Transport) -> None:
        """Nobody tells us of a connection's end, so that none pays for being watched: the list is cleaned when it has doubled."""
        known = self._open.setdefault(address, [])
        if len(known) >= self._many.get(address, FEW):
            known[:] = [one for one in known if not one.is_closing()]
            self._many[address] = max(FEW, 2 * len(known))
        known.append(transport)

    def apply(self, cut: Mapping[str, str]) -> None:
        """Put these partitions in force, in the place of those before."""
        if cut == self.cut:
            return
        before, self.cut = self.cut, cut
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for address in before:
            if address not in cut:
                self._heal(address)
        for address in cut:
            if address not in before:
                for transport in [one for one in self._open.get(address, ()) if not one.is_closing()]:
                    handler: Any = transport.get_protocol()
                    handler.rewire(self._hold(address, transport, handler))

    def _hold(self, address: str, transport: asyncio.Transport, above: Handler) -> Held:
        held = Held(transport, above, lambda: self.met(self.cut[address]))
        self._held.setdefault(address, []).append(held)
        return held

    def _heal(self, address: str) -> None:
        for held in self._held.pop(address, ()):
            held.release()

    def close(self) -> None:
        """The end of the sidecar: connections that are held, too."""
        for address in list(self._held):
            for held in self._held.pop(address):
                held.give_up()


class _First(Handler):
    """The first moment of a connection that we make."""

    def __init__(self, partitions: Partitions, address: str, inner: Handler) -> None:
        self._partitions, self._address, self._inner = partitions, address, inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._partitions.joined(self._address, transport, self._inner)  # type: ignore[arg-type] # a socket transport


class Held(Handler):
    """Stands between a socket's transport and its handler while nothing may pass: the one's protocol, the other's transport."""

    def __init__(self, below: asyncio.Transport, above: Handler, wrote: Callable[[], None]) -> None:
        self._below, self._above, self._wrote = below, above, wrote
        self._reading = below.is_reading()
        self._arrived: list[bytes] = []  # had left the kernel before
        self._waiting: list[bytes] = []
        self._size = 0
        self._eof = False
        self._ended = ""  # closed | aborted, for the handler; the socket's own end comes when it heals
        below.pause_reading()
        below.set_protocol(as_protocol(self))

    def release(self) -> None:
        """Let everything pass that waits, and step aside."""
        below, above = self._below, self._above
        if self._ended:
            self._end_late()
            return
        below.set_protocol(as_protocol(above))
        above.rewire(below)
        self._flush()
        if self._eof and not below.is_closing():
            below.write_eof()
        if self._size > FULL:
            above.resume_writing()
        for data in self._arrived:
            above.data_received(data)
        if self._reading and not below.is_closing():
            below.resume_reading()

    def _end_late(self) -> None:
        if self._ended == "closed":
            self._flush()
            self._below.close()
        else:
            self._below.abort()

    def _flush(self) -> None:
        for data in self._waiting:
            self._below.write(data)

    def give_up(self) -> None:
        self._below.abort()

    # Below: called by the socket's transport.
    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._ended = "aborted"
            self._above.connection_lost(exc)

    # Above: called by the handler, whose transport this is.
    def write(self, data: bytes) -> None:
        if self._ended:
            return
        if not self._waiting:
            self._wrote()
        self._waiting.append(data)
        before, self._size = self._size, self._size + len(data)
        if before <= FULL < self._size:
            self._above.pause_writing()

    def write_eof(self) -> None:
        self._eof = True

    def can_write_eof(self) -> bool:
        return True

    def set_protocol(self, protocol: Handler) -> None:
        self._above = protocol

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_closing(self) -> bool:
        return bool(self._ended) or self._below.is_closing()

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        """For the handler it is over; the other side hears of it when packets pass again."""
        if not self._ended:
            self._ended = how
            asyncio.get_running_loop().call_soon(self._above.connection_lost, None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)
