"""The launcher as its starter holds it. It is started first of all: what it imports takes longer than anything else of `up`."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass

from devmesh.runtimes.files import MeshFiles


@dataclass(frozen=True, slots=True)
class Preload:
    """The process and our end of its channel (devmesh/launch.py)."""

    process: subprocess.Popen[bytes]
    channel: socket.socket

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        """Stop it and wait; what it has forked lives on."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def preload(files: MeshFiles, name: str = "launcher") -> Preload:
    """Start a launcher, `launcher` or `pods` (devmesh.launch.PRELOAD); it says `loaded` on the channel when it can fork."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with files.log(name).open("ab") as log, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "devmesh.launch", str(theirs.fileno()), name],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ours.setblocking(False)  # noqa: FBT003 - socket's own signature
    return Preload(process, ours)
