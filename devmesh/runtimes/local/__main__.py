"""`python -m devmesh.runtimes.local CHANNEL PODS`: the launcher of one mesh, from which its supervisor is forked too.

One process imports what all of them need. The supervisor comes first; while it makes pods and starts apps the rest is imported.
"""

from __future__ import annotations

import gc
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devmesh.launch import ENTRIES, MODULES, Entry, Launcher, Ready, Sockets

SUPERVISOR = {"supervisor": ("devmesh.runtimes.local.life",)}
PODS = {"pod": ("devmesh.pods.init",)}


@contextmanager
def without_authorities() -> Iterator[None]:
    """aiohttp and requests read the machine's certificate authorities as they are imported: 40 ms each where they are in one file.

    Nothing that is forked from here trusts them: its own authority is the mesh's CA.
    """
    names = ("load_default_certs", "set_default_verify_paths")
    kept = [(name, getattr(ssl.SSLContext, name)) for name in names]
    for name in names:
        setattr(ssl.SSLContext, name, lambda *_: None)
    try:
        yield
    finally:
        for name, method in kept:
            setattr(ssl.SSLContext, name, method)


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
    with without_authorities():
        Launcher(channel, entries, {**SUPERVISOR, **MODULES}).serve()


if __name__ == "__main__":
    main()
