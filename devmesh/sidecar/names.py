"""The pod's DNS from its first question on: the library that answers costs a start as much as a third of all else, and most apps never ask."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmesh.sidecar.dns import NameServer

Names = Mapping[str, tuple[str, ...]]


@asynccontextmanager
async def serving(sockets: Sequence[socket.socket], names: Callable[[], Names], extra: Names) -> AsyncIterator[None]:
    """`extra` are the runtime's own names, those without an address refused. Questions wait in the sockets until the library is there."""
    made: list[NameServer] = []
    waiting = asyncio.create_task(_begin(sockets, names, extra, made), name="first question for a name")
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        for server in made:
            await server.close()


async def _begin(sockets: Sequence[socket.socket], names: Callable[[], Names], extra: Names, made: list[NameServer]) -> None:
    await _asked(sockets)
    # in a thread: requests are under way meanwhile
    module = await asyncio.to_thread(importlib.import_module, "devmesh.sidecar.dns")
    server: NameServer = module.NameServer(names, extra, module.machine_resolvers)
    made.append(server)
    for sock in sockets:
        await server.listen(sock)


async def _asked(sockets: Sequence[socket.socket]) -> None:
    """Until one of them has something to read."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for sock in sockets:
        loop.add_reader(sock, asked.set)
    try:
        await asked.wait()
    finally:
        for sock in sockets:
            loop.remove_reader(sock)
