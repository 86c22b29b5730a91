"""The launchers as their starter holds them, until it hands them over to the supervisor that they fork."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from devmesh.runtimes.processes import start_time, stop_all

GRACE = 2.0  # seconds; a launcher has nothing to finish


@dataclass(frozen=True, slots=True)
class Preload:
    """One launcher's process and our end of its channel (devmesh/launch.py)."""

    pid: int
    started: int
    channel: socket.socket

    @classmethod
    def of(cls, pid: int, channel: socket.socket) -> Preload:
        channel.setblocking(False)  # noqa: FBT003 - socket's own signature
        return cls(pid, start_time(pid) or 0, channel)

    def end(self) -> None:
        """Stop it and wait; what it has forked lives on."""
        self.channel.close()
        stop_all([(self.pid, self.started)], GRACE)


class Preloading:
    """The process that both launchers come from, imports under way; `log` takes what it says until the supervisor is there."""

    def __init__(self, log: IO[Any]) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in ("launcher", "pods")]
        self._ours = [ours for ours, _ in pairs]
        theirs = [one for _, one in pairs]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "devmesh.runtimes.local", *(str(one.fileno()) for one in theirs)],
            pass_fds=[one.fileno() for one in theirs],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        for one in theirs:
            one.close()

    def supervise(self, compose_file: Path, settings: dict[str, Any], log: Path) -> IO[str]:
        """Fork the supervisor and leave the launchers to it; what it tells, a line of JSON each."""
        report, theirs = socket.socketpair()
        arguments = {"compose_file": str(compose_file), "settings": settings}
        request = {"name": "supervisor", "entry": "supervisor", "arguments": arguments, "log": str(log)}
        pods = settings.get("interception", "auto") != "proxy"
        self._send(request, [theirs, *self._ours[: 1 + pods]])
        theirs.close()
        self._close()
        with report:
            return report.makefile()

    def _send(self, request: dict[str, Any], sockets: Sequence[socket.socket]) -> None:
        try:
            socket.send_fds(self._ours[0], [json.dumps(request).encode()], [one.fileno() for one in sockets])
        except BrokenPipeError:
            pass  # it has ended already: nobody tells anything, and the log says why

    def _close(self) -> None:
        for one in self._ours:
            one.close()

    def give_up(self) -> None:
        """Another runtime was chosen, or none."""
        self._close()
        self._process.terminate()
        self._process.wait()
