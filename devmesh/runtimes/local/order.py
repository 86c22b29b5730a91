"""When apps are started and stopped, and what they then wait for: what their `depends_on` says (Compose specification, "depends_on")."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from devmesh.config.dependencies import COMPLETED, HEALTHY, STARTED, Dependency
from devmesh.config.topology_types import Workload
from devmesh.runtimes.dependents import in_order
from devmesh.runtimes.local import health
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.waiting import said

FAILED = "dependency failed to start"  # as compose begins it


class DependencyError(Exception):
    """What is waited for will not come; `whose` log says more."""

    def __init__(self, whose: str, why: str) -> None:
        super().__init__(why)
        self.whose, self.why = whose, why


def at_once(workloads: Iterable[Workload]) -> list[Workload]:
    """Those that wait for nothing but a start, in the order of starting."""
    found: dict[str, Workload] = {}
    for one in in_order(workloads):
        if all(needed.condition == STARTED and needed.name in found for needed in one.depends_on):
            found[one.name] = one
    return list(found.values())


def to_stop(workloads: Iterable[Workload]) -> list[list[str]]:
    """In groups: nobody is stopped before all who depend on it."""
    depth: dict[str, int] = {}
    for one in reversed(in_order(workloads)):
        mine = depth.setdefault(one.name, 0)
        for needed in one.depends_on:
            depth[needed.name] = max(depth.get(needed.name, 0), mine + 1)
    return [[name for name, level in depth.items() if level == wanted] for wanted in range(max(depth.values(), default=-1) + 1)]


def to_start(
    workloads: Iterable[Workload], named: Collection[str], processes: Mapping[str, Managed]
) -> Iterator[tuple[str, tuple[Dependency, ...]]]:
    """Who of these, and of whom they depend on, is to be started in this order, each with what it waits for.

    What runs is left alone, and a job that is done unless it is named.
    """
    ordered = in_order(workloads)
    wanted = set(named)
    for one in reversed(ordered):
        if one.name in wanted and not processes[one.name].runs:
            wanted.update(needed.name for needed in one.depends_on if not processes[needed.name].done)
    for one in ordered:
        if one.name in wanted and not processes[one.name].runs:
            yield one.name, one.depends_on


def policy(workload: Workload, workloads: Iterable[Workload]) -> str:
    """Its `restart`; compose's own default, "no", for one whose completion somebody waits for: started again it would never have failed."""
    awaited = any(needed.name == workload.name and needed.condition == COMPLETED for one in workloads for needed in one.depends_on)
    return workload.restart or ("no" if awaited else "")


async def clear(needs: Sequence[Dependency], processes: Mapping[str, Managed], mine: Managed) -> list[str]:
    """Wait until they are as needed; what of it was optional and is not. Raises DependencyError.

    It ends at once when `mine` is told to stop, or was started by somebody else.
    """
    news, watched = asyncio.Event(), [mine, *(processes[needed.name] for needed in needs)]
    for one in watched:
        one.changed.followers.add(news)
    try:
        return await _clear(needs, processes, mine, news)
    finally:
        mine.waits = ""
        for one in watched:
            one.changed.followers.discard(news)


async def _clear(needs: Sequence[Dependency], processes: Mapping[str, Managed], mine: Managed, news: asyncio.Event) -> list[str]:
    born, given_up = mine.born, {}
    while mine.wanted and mine.born == born:
        news.clear()
        missing = []
        for needed in needs:
            process = processes[needed.name]
            why = failure(needed, process)
            if why and needed.required:
                raise DependencyError(process.refused_for or process.name, process.refused or f"{FAILED}: {why}")
            if why:
                given_up[needed.name] = f"optional {FAILED}: {why}"
            elif not is_met(needed, process):
                missing.append(needed)
        mine.waits = ", ".join(map(str, missing))
        if not missing:
            break
        await news.wait()
    return list(given_up.values())


def is_met(needed: Dependency, process: Managed) -> bool:
    if needed.condition == HEALTHY:
        return process.status is None and process.health is not None and process.health.status == health.HEALTHY
    if needed.condition == COMPLETED:
        return process.status == 0
    return process.born > 0


def failure(needed: Dependency, process: Managed) -> str:
    """Why it will not be as needed; "" while it may."""
    name = process.name
    if process.refused:
        return f"{name} was not started"
    if needed.condition == STARTED:
        return "" if process.born or process.wanted else f"{name} was stopped"
    if not process.wanted:
        return f"{name} was stopped"
    if needed.condition == COMPLETED:
        return f"{name} didn't complete successfully: exit {health.exit_code(process.status)}" if process.over and process.status else ""
    if process.status is not None:
        return f"{name} exited ({health.exit_code(process.status)})"
    if process.healthcheck is None:
        return f"{name} has no healthcheck configured"
    if process.health is not None and process.health.status == health.UNHEALTHY:
        return f"{name} is unhealthy{said(process.health.words())}"
    return ""
