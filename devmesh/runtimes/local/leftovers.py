"""What a killed supervisor left running."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.processes import is_same, start_time, stop_all

GRACE = 6.0  # seconds between SIGTERM and SIGKILL, one more than a sidecar drains


def clean_up(files: MeshFiles) -> bool:
    """Stop what a killed supervisor left; True when there was something."""
    state = files.read_state()
    if state is None:
        return False
    left = [(p["pid"], p["started"]) for p in state.get("processes", ()) if p["pid"]]
    for one in (state.get("launcher"), state.get("pod_launcher"), state.get("supervisor")):
        if one and one["pid"] != os.getpid():
            left += [(one["pid"], one["started"]), *_forked(one["pid"], one["started"])]
    alive = [(pid, started) for pid, started in left if is_same(pid, started)]
    stop_all(alive, GRACE)
    files.state.unlink(missing_ok=True)
    files.control_socket.unlink(missing_ok=True)
    return bool(alive)


def _forked(pid: int, started: int) -> list[tuple[int, int]]:
    """What a launcher has forked, and told to nobody when its supervisor was killed meanwhile. It forks no more: it stands still until it ends."""
    if not is_same(pid, started):
        return []
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [(child, start_time(child) or 0) for child in children if child != os.getpid()]
    return []


def let_go(state: Mapping[str, Any]) -> None:
    """SIGCONT to every app that a supervisor which is gone had stopped, as `state` tells of them."""
    for one in state.get("processes", ()):
        if not one.get("held") or not is_same(one["pid"], one["started"]):
            continue
        for pid in _companions(one["pid"]):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)


def _companions(pid: int) -> list[int]:
    """Everything that a signal to the app reaches: its pod, which is a PID namespace of its own, else its process group."""
    own = _namespace(os.getpid())
    theirs, group = _namespace(pid), os.getpgid(pid)
    everybody = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [one for one in everybody if (_namespace(one) == theirs if theirs != own else _group(one) == group)]


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0
