"""The data path's one seam: asyncio's callback shape, as a plain class.

`asyncio.Protocol` itself is interpreted code, so a class below it could not be compiled (`docs/performance.md`); asyncio asks for the
methods, not for the class.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import cast

NO_LINGER = struct.pack("ii", 1, 0)  # struct linger of socket(7): what is left is thrown away, and the peer gets a RST


class Handler:
    """One end of a connection, called by its transport (asyncio "Transports and Protocols": streaming protocols)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; the first call."""

    def rewire(self, transport: asyncio.BaseTransport) -> None:
        """Use this transport from now on, in the place of the one that it has (partition.py)."""

    def data_received(self, data: bytes) -> None:
        """Take bytes, never empty."""

    def eof_received(self) -> bool:
        """Hear that no more bytes come; True keeps the other direction open."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the connection is over; the last call."""

    def pause_writing(self) -> None:
        """Hear that the transport's buffer is above its limit."""

    def resume_writing(self) -> None:
        """Hear that it is below again."""


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a RST: its peer must not take what it has for the whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()


def as_protocol(handler: Handler) -> asyncio.Protocol:
    """The handler as asyncio's types name it."""
    return cast("asyncio.Protocol", handler)


def factory(make: Callable[[], Handler]) -> Callable[[], asyncio.Protocol]:
    return cast("Callable[[], asyncio.Protocol]", make)
