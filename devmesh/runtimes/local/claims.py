"""What meshes of one machine share out among themselves: numbers of meshes, ports of apps.

A claim is a bound abstract socket (unix(7)): it belongs to the network namespace, as the addresses and ports do that it stands for, and
ends with the process that holds it, whosever it is.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from devmesh.errors import DevmeshError
from devmesh.runtimes.local.ports import APP_PORTS

MESHES = 256


def claim(name: str) -> socket.socket | None:
    """Ours until the socket is closed; None when another has it."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(f"\0devmesh-{name}")
    except OSError:
        sock.close()
        return None
    return sock


def claim_mesh_number() -> tuple[int, socket.socket]:
    """The first number that no running mesh of this machine has."""
    for number in range(MESHES):
        if (held := claim(f"mesh-{number}")) is not None:
            return number, held
    raise DevmeshError(f"{MESHES} meshes run already", "devmesh down in a folder that you no longer need")


def claim_port(ports: Iterable[int] = APP_PORTS) -> tuple[int, socket.socket]:
    """A port for a process that binds by itself, later and again after each restart.

    A port "free when looked for" is not enough: what any other process asks of the kernel meanwhile would be handed that very port.
    """
    for port in ports:
        held = claim(f"port-{port}")
        if held is None:
            continue
        if _free(port):
            return port, held
        held.close()
    raise DevmeshError(f"no port between {APP_PORTS[0]} and {APP_PORTS[-1]} is free for an app", "end what listens there")


def _free(port: int) -> bool:
    """On every address: an app may bind all of them."""
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.bind(("", port))
        return True
    return False
