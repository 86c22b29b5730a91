"""Starts apps in their order: at `up`, and again when somebody restarts what they depend on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from devmesh.config.dependencies import HEALTHY, STARTED, Dependency
from devmesh.errors import DevmeshError
from devmesh.runtimes.bootstrap import Servers
from devmesh.runtimes.dependents import DEPENDENT_SECONDS, to_restart
from devmesh.runtimes.local.apps import Apps
from devmesh.runtimes.local.children import Children
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.order import FAILED, DependencyError, at_once, clear, is_met, policy, to_start
from devmesh.runtimes.local.plan import WorkloadPlan
from devmesh.runtimes.runtime import Tell
from devmesh.runtimes.waiting import NotInTimeError

Synced = Callable[[Iterable[str], Collection[str]], Awaitable[None]]


class Starting:
    """`plans` are those of now. `synced` returns when these sidecars have acknowledged all, and those workloads get traffic; it raises NotInTimeError."""

    def __init__(self, children: Children, apps: Apps, plans: Callable[[], Mapping[str, WorkloadPlan]], synced: Synced, tell: Tell) -> None:
        self._children, self._apps, self._plans, self._synced, self._tell = children, apps, plans, synced, tell
        self._processes = children.processes

    async def at_once(self, servers: Servers, directory: Path) -> None:
        """The apps that wait for nothing. They are begun before their sidecars, whose sockets take their calls already."""
        workloads = [plan.workload for plan in self._plans().values()]
        for plan in self._plans().values():
            self._apps.prepare(plan, servers, directory, policy(plan.workload, workloads))
        for one in at_once(workloads):
            if one.name in self._processes:
                await self._apps.spawn(self._processes[one.name])

    async def come_up(self, plan: WorkloadPlan) -> str | None:
        """Start it when what it waits for is so, and wait until it listens; its name when that fails."""
        process = self._processes.get(plan.workload.name)
        if process is not None and not process.born:
            await self._wait(plan, process)
            if process.wanted and not process.refused and not process.born:
                await self._apps.spawn(process)
            if not process.born:
                return process.name
        return await self._apps.listens(plan)

    async def _wait(self, plan: WorkloadPlan, process: Managed) -> None:
        """A dependency has the time that it takes, as compose's has, unless `up` was told how long it may wait."""
        try:
            async with asyncio.timeout(self._children.left() if self._children.told else None):
                await self._clear(plan, process)
        except TimeoutError:
            needs = plan.workload.depends_on
            lacking = [one for one in needs if not is_met(one, self._processes[one.name])] or needs
            words = ", ".join(map(str, lacking))
            process.refuse(f"{process.name} still waits for {words} after {self._children.limit:g} s", lacking[0].name)
        except DependencyError as error:
            process.refuse(error.why, error.whose)

    async def _clear(self, plan: WorkloadPlan, process: Managed) -> None:
        """Until it may start, and can reach whom it waited for: they are healthy before their callers' sidecars know. Raises DependencyError."""
        needs = plan.workload.depends_on
        for note in await clear(needs, self._processes, process):
            self._tell({"event": "note", "message": note})
        if all(one.condition == STARTED for one in needs) or process.born or not process.wanted:
            return
        healthy = [one.name for one in needs if one.condition == HEALTHY and is_met(one, self._processes[one.name])]
        callees = [name for name in healthy if self._plans()[name].workload.ports]
        try:
            await self._synced([process.name, *callees], callees)
        except NotInTimeError as error:
            raise DependencyError(callees[0] if callees else process.name, f"{FAILED}: {error.message}") from error

    async def restart_dependents(self, names: Sequence[str], act: Callable[[str, Managed], Awaitable[None]]) -> AsyncIterator[str]:
        """Whoever asks to be restarted with these, when what it waits for is so again; one that was stopped, or never started, is left alone.

        Raises DevmeshError.
        """
        for name, needs in to_restart((plan.workload for plan in self._plans().values()), names):
            process = self._processes[name]
            if not process.wanted or not process.born:
                continue
            if why := await self._why_not(needs, process):
                raise DevmeshError(f"{', '.join(names)} restarted, {name} not: {why}", f"devmesh logs {names[0]}")
            await act("restart", process)
            yield name

    async def start(self, names: Sequence[str], act: Callable[[str, Managed], Awaitable[None]]) -> AsyncIterator[str]:
        """These, and before them whom they depend on and who does not run, as compose's `start`; who was started. Raises DevmeshError."""
        for name, needs in to_start((plan.workload for plan in self._plans().values()), names, self._processes):
            process = self._processes[name]
            was_wanted, process.wanted = process.wanted, True
            if why := await self._why_not(needs, process):
                process.wanted = was_wanted
                raise DevmeshError(f"{name} was not started: {why}", f"devmesh logs {needs[0].name}, or devmesh start --no-deps {name}")
            if process.wanted:  # nobody has told it to stop meanwhile
                await act("start", process)
                yield name

    async def _why_not(self, needs: Sequence[Dependency], process: Managed) -> str:
        """Wait until what it depends on is as it needs it; what came between, else ""."""
        try:
            async with asyncio.timeout(DEPENDENT_SECONDS):
                await clear(needs, self._processes, process)
        except DependencyError as error:
            return error.why
        except TimeoutError:
            return f"it waited {DEPENDENT_SECONDS:g} s for {', '.join(map(str, needs))}"
        return ""
