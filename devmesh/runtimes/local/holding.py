"""Apps that faults hold: stopped by SIGSTOP to everything they consist of, let go by SIGCONT."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable

from devmesh.registry.client import Registry
from devmesh.runtimes.faults import held_apps
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.pods import Pods
from devmesh.runtimes.processes import is_same

DEATH_SECONDS = 5.0  # that a process may take to be gone after SIGKILL


def signal_app(process: Managed, number: int, pods: Pods, *, everything: bool = True) -> None:
    """Send a signal to an app: to all of its pod, else to its process group. Nothing happens when it has just ended."""
    with contextlib.suppress(OSError):
        if process.name in pods:
            pods.signal(process.name, number, everything=everything)
        elif is_same(process.pid, process.started):
            os.killpg(process.pid, number)


async def kill_app(process: Managed, pods: Pods) -> bool:
    """SIGKILL; return when it is dead, and False when it did not run. What starts it again is its supervisor's business."""
    if not process.runs:
        return False
    born = process.born
    signal_app(process, signal.SIGKILL, pods, everything=False)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEATH_SECONDS):
            while process.status is None and process.born == born:
                process.changed.clear()
                await process.changed.wait()
    return process.status is not None or process.born != born


class Holding:
    """One look at a time: what the registry says when a look begins is in force when it ends. `changed` is called after one that did something."""

    def __init__(self, apps: Callable[[], Iterable[Managed]], pods: Pods, changed: Callable[[], None]) -> None:
        self._apps, self._pods, self._changed = apps, pods, changed
        self._looking = asyncio.Lock()

    async def look(self, registry: Registry) -> dict[str, str]:
        """Stop and let go as the faults in the registry say; the workloads that stand still, with their fault."""
        async with self._looking:
            wanted, before = await held_apps(registry), self._held()
            for process in self._apps():
                self.bring_about(process, wanted.get(process.name, ""))
            if self._held() != before:
                self._changed()
            return self._held()

    def _held(self) -> dict[str, str]:
        return {process.name: process.held for process in self._apps() if process.held}

    def bring_about(self, process: Managed, fault: str) -> None:
        """An app that is still starting is left to it: `up` and `restart` wait for it."""
        if fault and not process.held and process.settled:
            signal_app(process, signal.SIGSTOP, self._pods)
        elif process.held and not fault:
            signal_app(process, signal.SIGCONT, self._pods)
        elif not process.held:
            return
        process.held, process.holds = fault, process.holds + 1
        process.changed.set()
