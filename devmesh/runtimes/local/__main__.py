"""`python -m devmesh.runtimes.local CHANNEL PODS`: the launcher of one mesh, from which its supervisor is forked too.

One process imports what all of them need. The supervisor comes first; while it makes pods and starts apps the rest is imported.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path
from typing import Any

from devmesh.launch import ENTRIES, MODULES, Entry, Launcher, Ready, Sockets

SUPERVISOR = {"supervisor": ("devmesh.runtimes.local.life",)}
PODS = {"pod": ("devmesh.pods.init",)}


def supervisor(launcher: int, pods: int) -> Entry:
    """The entry that becomes the mesh's supervisor; it has to know its launchers' process ids."""

    def run(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
        from devmesh.runtimes.local.life import live  # noqa: PLC0415 - preloaded

        ready()
        report, *channels = sockets
        launchers = list(zip((launcher, pods), channels, strict=False))
        sys.exit(live(Path(arguments["compose_file"]), report, launchers, arguments["began"]))

    return run


def fork_pods_launcher(channel: socket.socket, other: socket.socket) -> int:
    """Pods have a launcher of their own: small, and so quick to fork from."""
    pid = os.fork()
    if pid == 0:
        other.close()
        os.setsid()
        Launcher(channel, modules=PODS).serve()
        os._exit(0)
    channel.close()
    return pid


def main() -> None:
    gc.disable()  # what is imported stays
    channel, pods = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:])
    pods_pid = fork_pods_launcher(pods, channel)
    entries: dict[str, Entry] = {**ENTRIES, "supervisor": supervisor(os.getpid(), pods_pid)}
    Launcher(channel, entries, {**SUPERVISOR, **MODULES}).serve()


if __name__ == "__main__":
    main()
