"""What runs inside the mesh's own containers: `python -m devmesh.runtimes.docker.entry pod|sidecar|ca|control ...`."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from devmesh.ca.files import private_directory, write_private
from devmesh.errors import DevmeshError

READY = Path("/tmp/ready")  # noqa: S108 - a tmpfs that only this container has
POD_TIMEOUT = 30.0  # seconds; the pod's init needs a fraction of one
BACKLOG = 1024


def pod(arguments: Sequence[str]) -> None:
    from devmesh.runtimes.docker.pod import main  # noqa: PLC0415 - one entry loads nothing of another

    main(arguments)


def sidecar(arguments: Sequence[str]) -> None:
    from devmesh.runtimes.docker.pod import SOCKETS, meet  # noqa: PLC0415 - as above
    from devmesh.sidecar.__main__ import main, open_socket  # noqa: PLC0415 - as above
    from devmesh.sidecar.bootstrap import Bootstrap  # noqa: PLC0415 - as above
    from devmesh.sidecar.listener import SocketSpec  # noqa: PLC0415 - as above

    path = Path(arguments[0])
    bootstrap = Bootstrap.load(path)
    if bootstrap.workload.gateway:
        main(path)
        return
    pod, held = meet(POD_TIMEOUT)
    threading.Thread(target=end_with, args=(pod,), daemon=True, name="pod").start()
    roles = {port: role for role, port in SOCKETS}
    addresses = [(*sock.getsockname()[:2], sock) for sock in held]
    specs = [SocketSpec(roles[port], address, port, sock) for address, port, sock in addresses]
    main(path, [*specs, *map(open_socket, bootstrap.sockets)])


def end_with(pod: socket.socket, leave: Callable[[int], object] = os._exit) -> None:
    """Drain when the pod goes: its network goes with it. A pod that was killed waits for nobody.

    Then the engine takes the network away within some 10 ms, and a connection that was not closed by then is never: its peer would wait for ever.
    """
    pod.recv(1)
    log = logging.getLogger(__name__)
    if is_gone(pod):
        log.warning("the pod is gone, and so are we")
        leave(1)
        return
    log.info("the pod ends, and so do we")
    os.kill(os.getpid(), signal.SIGTERM)


def is_gone(peer: socket.socket) -> bool:
    """Whether the other end is closed, and not only shut down for writing: a pod that ends waits for us with the rest of it."""
    poller = select.poll()
    poller.register(peer, 0)
    return any(events & select.POLLHUP for _, events in poller.poll(0))


def ca(arguments: Sequence[str]) -> None:
    from devmesh.launch import ENTRIES  # noqa: PLC0415 - as above

    settings = json.loads(Path(arguments[0]).read_bytes())
    directory, trust = Path(settings["arguments"]["directory"]), Path(settings["trust"])
    seed(directory, json.loads(Path(settings["grants"]).read_bytes()))

    def ready() -> None:
        shutil.copyfile(directory / "root.pem", trust / "root.pem.new")
        (trust / "root.pem.new").replace(trust / "root.pem")
        READY.touch()

    ENTRIES["ca"](settings["arguments"], listeners(settings["listen"]), ready)


def seed(directory: Path, grants: Mapping[str, Mapping[str, str]]) -> None:
    """Give the CA the tokens of this `up` (their hashes), in place of what the same workloads had before."""
    private_directory(directory)
    file = directory / "tokens.json"
    kept = json.loads(file.read_bytes()) if file.exists() else {}
    names = {grant["workload"] for grant in grants.values()}
    merged = {digest: grant for digest, grant in kept.items() if grant["workload"] not in names} | dict(grants)
    write_private(file, json.dumps(merged, indent=1).encode())


def control(arguments: Sequence[str]) -> None:
    from devmesh.launch import ENTRIES  # noqa: PLC0415 - as above

    settings = json.loads(Path(arguments[0]).read_bytes())
    ENTRIES["control"](settings["arguments"], listeners(settings["listen"]), READY.touch)


def listeners(addresses: Sequence[Sequence[Any]]) -> list[socket.socket]:
    return [socket.create_server((str(address), int(port)), backlog=BACKLOG) for address, port in addresses]


WHAT = {"pod": pod, "sidecar": sidecar, "ca": ca, "control": control}


def main() -> None:
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        WHAT[sys.argv[1]](sys.argv[2:])
    except DevmeshError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"\nhint: {error.hint}\n" if error.hint else ""))
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
