"""The data path's one seam: asyncio's callback shape, as a plain class.

`asyncio.Protocol` itself is interpreted code, so a class below it could not be compiled (`docs/performance.md`); asyncio asks for the
methods, not for the class.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast


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


def as_protocol(handler: Handler) -> asyncio.Protocol:
    """The handler as asyncio's types name it."""
    return cast("asyncio.Protocol", handler)


def factory(make: Callable[[], Handler]) -> Callable[[], asyncio.Protocol]:
    return cast("Callable[[], asyncio.Protocol]", make)
