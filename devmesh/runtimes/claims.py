"""What meshes of one machine share out among themselves, whatever their runtimes: numbers of meshes, ports on loopback.

A claim is a bound abstract socket (unix(7)): it belongs to the network namespace, as the addresses and ports do that it stands for, and
ends with the process that holds it, whosever it is.
"""

from __future__ import annotations

import contextlib
import socket

from devmesh.errors import DevmeshError
from devmesh.runtimes.local.ports import APP_PORTS

MESHES = 256
PREFIX = "devmesh"


def claim(name: str) -> socket.socket | None:
    """Ours until the socket is closed; None when another has it."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(f"\0{PREFIX}-{name}")
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


def claim_port() -> tuple[int, socket.socket]:
    """A port for a process that binds by itself, later and again after each restart.

    A port "free when looked for" is not enough: what any other process asks of the kernel meanwhile would be handed that very port.
    """
    for port in APP_PORTS:
        if (held := _claimed(port, "", reuse=False)) is not None:
            return port, held
    raise DevmeshError(f"no port between {APP_PORTS[0]} and {APP_PORTS[-1]} is free for an app", "end what listens there")


def claim_usual_port(usual: int) -> tuple[int, socket.socket]:
    """`usual` on 127.0.0.1, for a server that is known by it; one of its own when another has or is about to have that."""
    held = _claimed(usual, "127.0.0.1", reuse=True)
    return (usual, held) if held is not None else claim_port()


class PortClaims(contextlib.ExitStack):
    """Ports for servers that another program starts: no other mesh is given them until this ends, nor as long as a heir lives.

    What is restarted has not bound its port for a moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[socket.socket] = []

    def prefer(self, port: int) -> int:
        """`port` on 127.0.0.1, or one of its own when it is 0 or somebody has it."""
        chosen, held = claim_usual_port(port) if port else claim_port()
        self._hold(held)
        return chosen

    def take(self, port: int) -> None:
        """What is bound whatever happens: the user's own choice, which others are only kept from."""
        if (held := claim(f"port-{port}")) is not None:
            self._hold(held)

    def alone(self, name: str) -> bool:
        """Have something that is no port for as long as the ports; False when another mesh has it."""
        held = claim(name)
        if held is not None:
            self._hold(held)
        return held is not None

    def _hold(self, held: socket.socket) -> None:
        self._held.append(self.enter_context(held))

    @property
    def inheritance(self) -> tuple[int, ...]:
        """File descriptors: a process that has them is a heir."""
        return tuple(one.fileno() for one in self._held)


def _claimed(port: int, address: str, *, reuse: bool) -> socket.socket | None:
    held = claim(f"port-{port}")
    if held is not None and not _free(port, address, reuse=reuse):
        held.close()
        return None
    return held


def _free(port: int, address: str, *, reuse: bool) -> bool:
    """An app may bind all addresses (the empty one), and may not say SO_REUSEADDR: what waits out an ended connection is in its way."""
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sock.bind((address, port))
        return True
    return False
