"""The user's processes: each started in its pod, or beside its sidecar where there are none, and awaited until it listens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from devmesh.ca.files import write_private
from devmesh.errors import DevmeshError
from devmesh.pods.listening import listening_addresses
from devmesh.runtimes.bootstrap import Servers
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.bootstrap import app_environment, pod_environment
from devmesh.runtimes.local.checks import Checks
from devmesh.runtimes.local.children import Children
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.plan import WorkloadPlan
from devmesh.runtimes.local.pods import Pods
from devmesh.runtimes.processes import start_time

LOOK_SECONDS = 0.01


class Apps:
    def __init__(self, files: MeshFiles, children: Children, pods: Pods, checks: Checks) -> None:
        self._files, self._children, self._pods, self._checks = files, children, pods, checks
        self._looked = 0.0
        self._open: Collection[int] = ()

    def prepare(self, plan: WorkloadPlan, servers: Servers, directory: Path, restart: str) -> None:
        """Know how it is started: in `directory`, unless the compose file says another; `restart` is its policy."""
        workload = plan.workload
        if workload.command is None:
            return
        argv = list(workload.command)
        if argv[0] in ("python", "python3"):
            argv[0] = sys.executable
        request = {"argv": argv, "environment": app_environment(plan, servers), "cwd": workload.working_dir or str(directory)}
        self._children.processes[workload.name] = Managed(
            workload.name, "app", listens=bool(plan.app_ports), restart=restart, healthcheck=workload.healthcheck, request=request
        )
        write_private(self._files.environment(workload.name), json.dumps(pod_environment(plan, servers)).encode(), durable=False)

    async def spawn(self, process: Managed) -> None:
        """Start it, or start it again."""
        if process.name in self._pods:
            self._start_in_pod(process)
        else:
            await self._children.spawn(process)
        self._checks.watch(process)

    def _start_in_pod(self, process: Managed) -> None:
        process.begin(time.monotonic())
        fd = self._files.open_log(process.name)
        try:
            self._pods.start_app(process.name, process.request, fd)
        except OSError:  # the pod has just ended: the app starts with the next one
            process.status = -signal.SIGKILL
        finally:
            os.close(fd)

    def on_event(self, name: str, event: dict[str, Any]) -> None:
        """What its pod's init says of it: `app`, `listening` or `exited`."""
        process = self._children.processes[name]
        if event["event"] == "checked":
            self._checks.on_checked(event)
            return
        if event["event"] == "app":
            process.pid = self._pods.outside_pid(name, event["pid"])
            process.started = start_time(process.pid) or 0
            process.ready = not process.listens  # nothing else is to be seen of it
        elif event["event"] == "listening":
            process.ready = True
        elif event["event"] == "exited":
            self._children.exited(process, event["status"])
        process.changed.set()

    async def listens(self, plan: WorkloadPlan, limit: float | None = None) -> str | None:
        """Wait until it takes connections; its name when it has ended, or has not come so far in `limit` seconds, else as `up` waits."""
        seconds = self._children.limit if limit is None else limit
        process = self._children.processes.get(plan.workload.name)
        if process is None or not plan.app_ports:
            return None
        if plan.interception == "namespace":
            return await self._listens_in_pod(process, seconds)
        return await self._listens_beside(process, next(iter(plan.app_ports.values())), seconds)

    async def _listens_beside(self, process: Managed, port: int, limit: float) -> str | None:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and process.status is None:
            if port in self._open_ports():
                process.ready = True
                process.changed.set()
                return None
            await asyncio.sleep(LOOK_SECONDS)  # between looks at an app that only its port tells about
        return process.name

    def _open_ports(self) -> Collection[int]:
        """One look for all apps that are waited for; it costs them nothing, a connection might."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._open = now, listening_addresses().keys()
        return self._open

    @staticmethod
    async def _listens_in_pod(process: Managed, limit: float) -> str | None:
        try:
            async with asyncio.timeout(limit):
                while not process.ready and process.status is None:
                    await process.change()
        except TimeoutError:
            return process.name
        return process.name if process.status is not None else None

    def failed_at_start(self, plans: list[WorkloadPlan]) -> DevmeshError:
        """How each of these failed, and its last words; of whoever was not started because of another, that one's."""
        processes = self._children.processes
        refused = {plan.workload.name: processes[plan.workload.name] for plan in plans if processes[plan.workload.name].refused}
        parts, whose = [], []
        for plan in plans:
            name = plan.workload.name
            if name not in refused:
                how = processes[name].how_it_failed(plan.app_ports, self._children.limit)
                parts.append(f"{name} {how}; its last lines:\n{self._children.last_lines(name)}")
                whose.append(name)
        for (why, root), names in _by_reason(refused.values()).items():
            parts.append(f"{why}; {', '.join(names)} {'was' if len(names) == 1 else 'were'} not started")
            lines = "" if root in whose else self._children.last_lines(root)
            if lines:
                parts[-1] += f"; the last lines of {root}:\n{lines}"
            whose.append(root)
        return DevmeshError("\n".join(parts) + "\nThe rest of the mesh runs.", f"devmesh logs {whose[0]}")


def _by_reason(refused: Iterable[Managed]) -> dict[tuple[str, str], list[str]]:
    """Names by why they were not started, and because of whom."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in refused:
        found.setdefault((one.refused, one.refused_for), []).append(one.name)
    return found
