"""The launchers as their mesh's supervisor holds them: it forks through them and hears what becomes of what they forked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

from devmesh.runtimes.local.preload import Preload

MAX_EVENT = 65536
Json = dict[str, Any]


class Launchers:
    """Events (devmesh/launch.py: `started`, `ready`, `exited`) go to `heard` from `listen` on."""

    def __init__(self, own: Preload, pods: Preload | None = None) -> None:
        self._own, self._pods = own, pods
        self._alive: set[socket.socket] = set()
        self._heard: Callable[[Json], None] = lambda _: None

    @property
    def make_pods(self) -> bool:
        """Whether there is one for pods."""
        return self._pods is not None

    def listen(self, heard: Callable[[Json], None]) -> None:
        self._heard = heard
        for one in self._all():
            self._alive.add(one.channel)
            asyncio.get_running_loop().add_reader(one.channel, self._read, one)

    def _all(self) -> list[Preload]:
        return [one for one in (self._own, self._pods) if one is not None]

    def _read(self, launcher: Preload) -> None:
        message = launcher.channel.recv(MAX_EVENT)
        if not message:
            self._leave(launcher)
            return
        self._heard(json.loads(message))

    def _leave(self, launcher: Preload) -> None:
        if launcher.channel in self._alive:
            asyncio.get_running_loop().remove_reader(launcher.channel)
            self._alive.discard(launcher.channel)

    @property
    def is_lost(self) -> bool:
        """Whether the one that our own servers and sidecars are forked from has gone."""
        return self._own.channel not in self._alive

    def fork(self, request: Json, sockets: Sequence[socket.socket], *, pod: bool) -> None:
        """Ask for a child with these sockets; nothing happens when its launcher is gone."""
        launcher = self._pods if pod else self._own
        if launcher is not None and launcher.channel in self._alive:
            socket.send_fds(launcher.channel, [json.dumps(request).encode()], [sock.fileno() for sock in sockets])

    def keep(self, sock: socket.socket) -> None:
        """Have it open in the launcher of our own processes and in all that it forks from now on: until the last of them has ended."""
        with contextlib.suppress(OSError):  # one that is gone forks nothing, and whoever forks through it is told
            socket.send_fds(self._own.channel, [json.dumps({"keep": True}).encode()], [sock.fileno()])

    async def end(self) -> None:
        """Stop them; what they have forked lives on."""
        for one in self._all():
            self._leave(one)
            await asyncio.to_thread(one.end)

    def state(self) -> Json:
        """Who they are, for whoever has to stop them."""
        return {
            name: {"pid": one.pid, "started": one.started} if one is not None else None
            for name, one in (("launcher", self._own), ("pod_launcher", self._pods))
        }
