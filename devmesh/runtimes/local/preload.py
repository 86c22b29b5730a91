"""The launchers as their starter holds them, until it hands them over to the supervisor that they fork."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from devmesh.runtimes.processes import start_time, stop_all

MAX_WORDS = 64 * 1024
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
    """The process that both launchers come from, imports under way. `began`: monotonic seconds."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._said = os.memfd_create("launcher")  # until there is a folder to log in
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in ("launcher", "pods")]
        self._ours = [ours for ours, _ in pairs]
        theirs = [one for _, one in pairs]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "devmesh.runtimes.local", *(str(one.fileno()) for one in theirs)],
            pass_fds=[one.fileno() for one in theirs],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )
        for one in theirs:
            one.close()

    def supervise(self, compose_file: Path, settings: dict[str, Any], log: Path, own_log: Path) -> IO[str]:
        """Fork the supervisor and leave the launchers to it; what it tells, a line of JSON each. `own_log` is the launchers'."""
        report, theirs = socket.socketpair()
        arguments = {"compose_file": str(compose_file), "began": self.began}
        request = {"name": "supervisor", "entry": "supervisor", "arguments": arguments, "log": str(log), "own_log": str(own_log)}
        pods = settings.get("interception", "auto") != "proxy"
        self._send(request, [theirs, *self._ours[: 1 + pods]])
        theirs.close()
        self._leave()
        with report:
            with suppress(ConnectionError):  # who has ended reads nothing
                report.sendall(
                    json.dumps(settings).encode() + b"\n"
                )  # not in the request: a datagram has a greatest size, settings have none
            return report.makefile()

    def last_words(self) -> list[str]:
        """What it said before it was told to supervise."""
        return os.pread(self._said, MAX_WORDS, 0).decode(errors="replace").splitlines()

    def _send(self, request: dict[str, Any], sockets: Sequence[socket.socket]) -> None:
        try:
            socket.send_fds(self._ours[0], [json.dumps(request).encode()], [one.fileno() for one in sockets])
        except BrokenPipeError:
            pass  # it has ended already: nobody tells anything, and its last words say why

    def _leave(self) -> None:
        for one in self._ours:
            one.close()

    def close(self) -> None:
        os.close(self._said)

    def give_up(self) -> None:
        """Another runtime was chosen, or none."""
        self._leave()
        self.close()
        self._process.terminate()
        self._process.wait()
