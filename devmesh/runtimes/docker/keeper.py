"""The host process of a mesh on Docker: repairs its containers after the engine's events, ends faults whose time is over.

A container that shares a namespace keeps the old one when the namespace's owner restarts: it answers nobody until it is restarted too.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.config.addon_names import ADDONS
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.runtimes.docker.engine import SERVICE_LABEL, Container, Engine
from devmesh.runtimes.docker.holding import hold
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.faults import watch_faults
from devmesh.runtimes.files import MeshFiles

log = logging.getLogger(__name__)
# Between looks when nothing happens: a start that failed (its port was taken) has no later event.
LOOK_SECONDS = 3.0
AWAY_SECONDS = 1.0  # between looks for an engine that is away
AT_ONCE = 1  # seconds of grace for a sidecar whose namespace is gone: there is nothing to drain
ALIVE = ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing to do; `start` for what does not run, else a restart with `grace` seconds (None: the container's own)."""

    container: Container
    why: str
    start: bool = False
    grace: int | None = None


def repairs(containers: Sequence[Container], stopped: Collection[str]) -> dict[str, list[Repair]]:
    """What to do, by workload (a part of the mesh is its own); within one in this order, so that no app runs without its sidecar.

    `stopped` names what somebody stopped on purpose. The app's own end is the user's restart policy's business.
    """
    pods = {one.labels[WORKLOAD_LABEL]: one for one in containers if one.labels.get(ROLE_LABEL) == "pod"}
    found: dict[str, list[Repair]] = {}
    for role in ("pod", "sidecar", "app", "gateway", "consul", "ca", "control", "jaeger", *ADDONS):
        for one in (one for one in containers if one.labels.get(ROLE_LABEL) == role):
            workload = one.labels.get(WORKLOAD_LABEL, one.service)
            repair = _repair(one, role, pods.get(workload), stopped)
            if repair is not None:
                found.setdefault(workload, []).append(repair)
    return found


def _repair(one: Container, role: str, pod: Container | None, stopped: Collection[str]) -> Repair | None:
    if one.state in ALIVE:
        if role in ("sidecar", "app") and pod is not None and pod.state == "running" and started(one) < started(pod):
            return Repair(one, "its pod was restarted", grace=AT_ONCE if role == "sidecar" else None)
        return None
    if one.state == "created":
        return None  # `up` or the user's compose file has it wait for something
    if one.error:  # the engine tried and could not: a port was taken, the pod did not run yet
        return Repair(one, one.error, start=True)
    return Repair(one, f"it is {one.state}", start=True) if role != "app" and one.service not in stopped else None


def started(one: Container) -> tuple[str, str]:
    """RFC 3339 as the engine writes it, comparable: its fraction has up to nine digits, without trailing zeros."""
    seconds, _, fraction = one.started.rstrip("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


class Stopped:
    """Whom somebody stopped on purpose: the engine says `stop` of those, and only `kill` and `die` of others."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def notice(self, event: Mapping[str, Any]) -> None:
        name = (event.get("Actor") or {}).get("Attributes", {}).get(SERVICE_LABEL, "")
        if event.get("Action") == "stop":
            self.names.add(name)
        elif event.get("Action") == "start":
            self.names.discard(name)

    def found(self, containers: Collection[Container]) -> None:
        """What runs is not stopped: an engine that was away says `stop` when it goes, and nobody hears its `start`."""
        self.names -= {one.service for one in containers if one.state in ALIVE}


class Keeper:
    """`connect` gives an engine for each thread: the SDK's connection is not to be shared. `away`: seconds between looks for an engine.

    `gone` is told whose pod has died, as Kubernetes' kubelet tells of a pod that is not ready: its sidecar can no longer say so itself.
    """

    def __init__(
        self,
        project: str,
        connect: Callable[[], Engine] = Engine.connect,
        away: float = AWAY_SECONDS,
        gone: Callable[[str], object] = str,
    ) -> None:
        self.project, self._connect, self._away, self._gone = project, connect, away, gone
        self._stopped = Stopped()
        self._changed = threading.Event()
        self._busy: set[str] = set()
        self._said = ""

    def follow(self) -> None:
        """Take the engine's events for ever; when it goes away, wait until it is back."""
        while True:
            try:
                engine = self._connect()
                events = engine.events(self.project)
                self._stopped.found(engine.containers(self.project))
                self._said = ""
                for event in events:
                    self._stopped.notice(event)
                    self._changed.set()
                    if (workload := pod_that_died(event)) is not None:
                        self._gone(workload)
            except DevmeshError as error:
                self._tell(error.message)
            self._changed.set()
            threading.Event().wait(self._away)

    def _tell(self, words: str) -> None:
        """Once, not every second that the engine is away."""
        if words != self._said:
            log.info("%s", words)
        self._said = words

    def repair(self) -> None:
        """Look after every event, and now and then, for ever."""
        while True:
            self._changed.wait(LOOK_SECONDS)
            self._changed.clear()
            try:
                with closing(self._connect()) as engine:
                    found = repairs(engine.containers(self.project), self._stopped.names)
            except DevmeshError as error:
                self._tell(error.message)
                continue
            for workload, todo in found.items():
                if workload not in self._busy:
                    self._busy.add(workload)
                    threading.Thread(target=self._do, args=(workload, todo), daemon=True, name=f"repair {workload}").start()

    def _do(self, workload: str, todo: Sequence[Repair]) -> None:
        try:
            with closing(self._connect()) as engine:
                for one in todo:
                    carry_out(engine, one)
        except DevmeshError as error:
            log.warning("%s: %s", workload, error.message)  # the next look, LOOK_SECONDS later, tries again
        finally:
            self._busy.discard(workload)


def pod_that_died(event: Mapping[str, Any]) -> str | None:
    """Its workload, when the engine's event is the end of a pod's container."""
    labels = (event.get("Actor") or {}).get("Attributes", {})
    return labels.get(WORKLOAD_LABEL) if event.get("Action") == "die" and labels.get(ROLE_LABEL) == "pod" else None


async def take_out(registry: Registry, workload: str) -> None:
    """Out of its callers' sight now, not when its check's time is over; the sidecar that comes back reports it in again."""
    try:
        await registry.ttl_fail(f"service:{workload}", "its pod died")
    except DevmeshError as error:
        log.warning("%s: %s", workload, error.message)


def carry_out(engine: Engine, one: Repair) -> None:
    log.info("%s %s: %s", "starting" if one.start else "restarting", one.container.service, one.why)
    if one.start:
        engine.start(one.container.id)
    else:
        engine.restart(one.container.id, one.grace)


async def keep(files: MeshFiles) -> None:
    """Until SIGTERM or SIGINT."""
    state = files.read_state() or {}
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    registry_url = f"http://127.0.0.1:{state['ports']['registry']}"
    async with Registry(registry_url, files.mesh_token()) as registry:
        loop = asyncio.get_running_loop()
        keeper = Keeper(state["project"], gone=lambda workload: asyncio.run_coroutine_threadsafe(take_out(registry, workload), loop))
        for work in (keeper.follow, keeper.repair):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()
        await watch_faults(registry_url, files.mesh_token(), stopping, lambda one: hold(one, state["project"], files))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(keep(MeshFiles.of(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
