"""Who is restarted with a service on an engine: those that depend on it with `restart: true`, as compose's own `restart` has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from devmesh.config.dependencies import COMPLETED, HEALTHY, Dependency
from devmesh.errors import DevmeshError
from devmesh.runtimes.dependents import DEPENDENT_SECONDS, to_restart
from devmesh.runtimes.docker.engine import Container, Engine
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.runtime import Json
from devmesh.runtimes.waiting import said

LOOK_SECONDS = 0.5  # between looks at what is waited for
RUNS = ("running", "restarting")
Apps = Callable[[], Mapping[str, Container]]
"""Gives the apps' containers of now, by workload."""


@dataclass(frozen=True, slots=True)
class App:
    name: str
    depends_on: tuple[Dependency, ...]


def as_json(depends_on: Iterable[Dependency]) -> list[Json]:
    """What `state.json` keeps of one workload's."""
    return [{"name": one.name, "condition": one.condition, "restart": one.restart} for one in depends_on]


def restart_dependents(engine: Engine, state: Json, restarted: Sequence[str], clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """Each is restarted when what it waits for is so again; one that does not run is left alone. Raises DevmeshError."""

    def apps() -> dict[str, Container]:
        return {one.labels[WORKLOAD_LABEL]: one for one in engine.containers(state["project"], f"{ROLE_LABEL}=app")}

    known = [
        App(name, tuple(Dependency(**needed) for needed in one.get("depends_on", ())))  # an earlier version's mesh says nothing
        for name, one in state["workloads"].items()
    ]
    until = clock() + DEPENDENT_SECONDS
    for name, needs in to_restart(known, restarted):
        mine = apps().get(name)
        if mine is None or mine.state not in RUNS:
            continue
        why = _wait(needs, apps, lambda: clock() > until)
        if why:
            raise DevmeshError(f"{', '.join(restarted)} restarted, {name} not: {why}", f"devmesh logs {needs[0].name}")
        engine.restart(mine.id)
        yield name


def _wait(needs: Sequence[Dependency], apps: Apps, over: Callable[[], bool]) -> str:
    """Until they are as needed; why they will not be, or ""."""
    while True:
        found = apps()
        for needed in needs:
            if why := failure(needed, found.get(needed.name)):
                return why
        missing = [needed for needed in needs if not is_met(needed, found[needed.name])]
        if not missing:
            return ""
        if over():
            return f"it waited {DEPENDENT_SECONDS:g} s for {', '.join(map(str, missing))}"
        time.sleep(LOOK_SECONDS)


def is_met(needed: Dependency, one: Container) -> bool:
    if needed.condition == HEALTHY:
        return one.state == "running" and one.health == "healthy"
    if needed.condition == COMPLETED:
        return one.state == "exited" and one.exit_code == 0
    return True


def failure(needed: Dependency, one: Container | None) -> str:
    """Why it will not be as needed; "" while it may."""
    if one is None:
        return f"{needed.name} is gone"
    if needed.condition == HEALTHY and one.state in ("exited", "dead"):
        return f"{needed.name} exited ({one.exit_code})"
    if needed.condition == HEALTHY and one.state == "running" and one.health == "":
        return f"{needed.name} has no healthcheck configured"
    if needed.condition == HEALTHY and one.health == "unhealthy":
        return f"{needed.name} is unhealthy{said(one.check_output)}"
    if needed.condition == COMPLETED and one.state == "exited" and one.exit_code:
        return f"{needed.name} didn't complete successfully: exit {one.exit_code}"
    return ""
