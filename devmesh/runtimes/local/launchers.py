"""The launchers as their mesh's supervisor holds them: it forks through them and hears what becomes of what they forked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from devmesh.runtimes.local.preload import Preload

MAX_EVENT = 65536
FULL = (errno.EAGAIN, errno.ETOOMANYREFS)  # of the channel's buffer; of sockets on their way, of all of this user's (unix(7))
FULL_SECONDS = 0.02  # until another try where the kernel tells nobody when there is room
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that the kernel did not take yet, with copies of its sockets: its sender may close its own."""

    message: bytes
    sockets: list[socket.socket]

    def close(self) -> None:
        for one in self.sockets:
            one.close()


class Launchers:
    """Events (devmesh/launch.py: `started`, `ready`, `exited`) go to `heard` from `listen` on."""

    def __init__(self, own: Preload, pods: Preload | None = None) -> None:
        self._own, self._pods = own, pods
        self._alive: set[socket.socket] = set()
        self._queues: dict[socket.socket, deque[Waiting]] = {one.channel: deque() for one in self._all()}
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
        while message := _received(launcher.channel):
            self._heard(json.loads(message))
        if message is not None:
            self._leave(launcher)

    def _leave(self, launcher: Preload) -> None:
        if launcher.channel in self._alive:
            asyncio.get_running_loop().remove_reader(launcher.channel)
            asyncio.get_running_loop().remove_writer(launcher.channel)
            self._alive.discard(launcher.channel)
        queue = self._queues[launcher.channel]
        while queue:
            queue.popleft().close()

    @property
    def is_lost(self) -> bool:
        """Whether the one that our own servers and sidecars are forked from has gone."""
        return self._own.channel not in self._alive

    def fork(self, request: Json, sockets: Sequence[socket.socket], *, pod: bool) -> None:
        """Ask for a child with these sockets, in turn when there are many; nothing happens when its launcher is gone."""
        launcher = self._pods if pod else self._own
        if launcher is not None and launcher.channel in self._alive:
            self._queues[launcher.channel].append(Waiting(json.dumps(request).encode(), [sock.dup() for sock in sockets]))
            self._send(launcher.channel)

    def _send(self, channel: socket.socket) -> None:
        loop, queue = asyncio.get_running_loop(), self._queues[channel]
        while queue:
            first = queue[0]
            try:
                socket.send_fds(channel, [first.message], [sock.fileno() for sock in first.sockets])
            except OSError as error:
                if error.errno not in FULL:
                    break  # the launcher is gone, of which `_read` is told
                loop.remove_writer(channel)
                if error.errno == errno.EAGAIN:
                    loop.add_writer(channel, self._send, channel)
                else:
                    loop.call_later(FULL_SECONDS, self._send_again, channel)
                return
            queue.popleft().close()
        loop.remove_writer(channel)

    def _send_again(self, channel: socket.socket) -> None:
        if channel in self._alive:
            self._send(channel)

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


def _received(channel: socket.socket) -> bytes | None:
    """The next message; None while there is none, b"" when there will be none any more."""
    try:
        return channel.recv(MAX_EVENT)
    except BlockingIOError:
        return None
    except ConnectionError:  # it went with requests of ours unread
        return b""
