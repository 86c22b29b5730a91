"""The host process of a mesh on Docker: repairs pods after the engine's events, ends faults whose time is over.

A container that shares a namespace keeps the old one when the namespace's owner restarts: it answers nobody until it is restarted too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devmesh.errors import DevmeshError
from devmesh.runtimes.contents import watch_faults
from devmesh.runtimes.docker.engine import Container, Engine
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.files import MeshFiles

log = logging.getLogger(__name__)
AWAY_SECONDS = 1.0  # between looks for an engine that is away
SIDECAR_GRACE, APP_GRACE = 8, 10  # seconds
ALIVE = ("running", "restarting")


@dataclass(frozen=True, slots=True)
class Repair:
    """One container to restart, and why."""

    container: Container
    grace: int
    why: str


def repairs(containers: Sequence[Container], wanted: Mapping[str, bool]) -> list[Repair]:
    """What to restart, sidecars first, so that no app runs without one.

    A member of a pod needs it when it was started before the pod's namespace was made. `wanted` says of an app that nobody stopped it on purpose.
    """
    pods = {one.labels[WORKLOAD_LABEL]: one for one in containers if one.labels.get(ROLE_LABEL) == "pod"}
    out = []
    for role, grace in (("sidecar", SIDECAR_GRACE), ("app", APP_GRACE)):
        for one in containers:
            pod = pods.get(one.labels.get(WORKLOAD_LABEL, ""))
            if one.labels.get(ROLE_LABEL) != role or pod is None or pod.state != "running":
                continue
            if one.state in ALIVE and stamp(one.started) < stamp(pod.started):
                out.append(Repair(one, grace, "its pod was restarted"))
            elif one.state not in ALIVE and wanted.get(one.service, role == "sidecar") and stamp(one.started) < stamp(pod.started):
                out.append(Repair(one, grace, f"it is {one.state} since its pod was restarted"))
    return out


def stamp(text: str) -> tuple[str, str]:
    """RFC 3339 as the engine writes it, comparable: its fraction has up to nine digits, without trailing zeros."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


class Keeper:
    def __init__(self, files: MeshFiles, project: str) -> None:
        self.files, self.project = files, project
        self._wanted: dict[str, bool] = {}

    def run(self) -> None:
        """Follow the engine for ever; when it goes away, wait until it is back and look at everything."""
        while True:
            try:
                engine = Engine.connect()
                events = engine.events(self.project)
                self.look(engine)
                for event in events:
                    self._notice(event)
                    if event.get("Action") == "start":
                        self.look(engine)
            except DevmeshError as error:
                log.info("%s", error.message)
            threading.Event().wait(AWAY_SECONDS)

    def _notice(self, event: Mapping[str, object]) -> None:
        """Remember whom somebody stopped on purpose: `kill` with SIGTERM comes before the `die` of a stop."""
        attributes = event.get("Actor", {}).get("Attributes", {})  # type: ignore[attr-defined] # the engine's own shape
        name = str(attributes.get("com.docker.compose.service", ""))
        if event.get("Action") == "stop":
            self._wanted[name] = False
        elif event.get("Action") == "start":
            self._wanted[name] = True

    def look(self, engine: Engine) -> None:
        for repair in repairs(engine.containers(self.project), self._wanted):
            log.info("restarting %s: %s", repair.container.service, repair.why)
            with contextlib.suppress(DevmeshError):
                engine.restart(repair.container.id, repair.grace)


async def keep(files: MeshFiles) -> None:
    state = files.read_state() or {}
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    threading.Thread(target=Keeper(files, state["project"]).run, daemon=True, name="engine events").start()
    await watch_faults(f"http://127.0.0.1:{state['ports']['registry']}", files.mesh_token(), stopping)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(keep(MeshFiles.of(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
