"""What a killed supervisor left running."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
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
    ours = [one for one in map(state.get, ("launcher", "pod_launcher", "supervisor")) if one and one["pid"] != os.getpid()]
    untold = [child for one in ours for child in _forked(one["pid"], one["started"])]
    found = False
    for group in (*_in_order(state), [*((one["pid"], one["started"]) for one in ours), *untold]):
        alive = [(pid, started) for pid, started in group if is_same(pid, started)]
        stop_all(alive, GRACE)
        found = found or bool(alive)
    files.state.unlink(missing_ok=True)
    files.control_socket.unlink(missing_ok=True)
    return found


def _in_order(state: Mapping[str, Any]) -> Iterator[list[tuple[int, int]]]:
    """Each group is stopped after the one before it, as the supervisor itself would have done (order.py)."""
    left = {one["name"]: one for one in state.get("processes", ()) if one["pid"]}
    apps = ([left.pop(name) for name in names if name in left] for names in state.get("stop_order", ()))
    others = ([left.pop(name) for name, one in list(left.items()) if one.get("kind") == kind] for kind in ("app", "sidecar", "pod"))
    for group in (*apps, *others, left.values()):
        yield [(one["pid"], one["started"]) for one in group]


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
