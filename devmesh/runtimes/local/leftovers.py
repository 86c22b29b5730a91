"""What a killed supervisor left running."""

from __future__ import annotations

import os

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.processes import is_same, stop_all

GRACE = 6.0  # seconds between SIGTERM and SIGKILL, one more than a sidecar drains


def clean_up(files: MeshFiles) -> bool:
    """Stop what a killed supervisor left; True when there was something."""
    state = files.read_state()
    if state is None:
        return False
    left = [(p["pid"], p["started"]) for p in state.get("processes", ()) if p["pid"]]
    for one in (state.get("launcher"), state.get("pod_launcher"), state.get("supervisor")):
        if one and one["pid"] != os.getpid():
            left.append((one["pid"], one["started"]))
    alive = [(pid, started) for pid, started in left if is_same(pid, started)]
    stop_all(alive, GRACE)
    files.state.unlink(missing_ok=True)
    files.control_socket.unlink(missing_ok=True)
    return bool(alive)
