"""The Docker runtime as `devmesh.mesh` sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.runtimes.claims import PortClaims
from devmesh.runtimes.docker.bring_up import REST_RUNS, BringUp, process_json, url_of
from devmesh.runtimes.docker.compose import Compose, Project
from devmesh.runtimes.docker.dependents import restart_dependents
from devmesh.runtimes.docker.engine import Container, Engine
from devmesh.runtimes.docker.holding import hold, kill_app
from devmesh.runtimes.docker.layout import CONTROL_NETWORK
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.docker.primary import DockerPrimary
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.primary import leave_primary
from devmesh.runtimes.processes import start_time, stop_all
from devmesh.runtimes.runtime import Json, LogQuery, Tell

# Any uid but the sidecar's: its connections are redirected as an app's are.
SOMEBODY = "65534:65534"
FACES = {"admin": 15000, "prometheus": 15090}
# The better shell where the image has one.
SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash || exec sh")
STARTING, KEEPER = "starting", "supervisor"


class DockerRuntime:
    """`supervisor` in the state is the keeper; `starting` is an `up` that has not returned."""

    name = "docker"

    def __init__(self, compose_file: Path, files: MeshFiles) -> None:
        self.compose_file, self.files = compose_file, files

    # -- life

    def is_up(self) -> bool:
        return self.files.keeper_lives()

    def up(self, settings: Json, tell: Tell) -> None:
        self.files.make()
        with self.files.lock() as lock, PortClaims() as ports:
            bringing = BringUp(self.compose_file, self.files, settings, tell, ports)
            self.files.write_state(self._starting({}))
            try:
                with interruptible():
                    state = asyncio.run(bringing.run())
            except DevmeshError as error:
                if bringing.project is not None and REST_RUNS in error.message:
                    self._keep(bringing.state(), lock, ports)
                else:
                    self._undo(bringing)
                raise
            except BaseException:
                self._undo(bringing)
                raise
            self._keep(state, lock, ports)

    def _starting(self, state: Json) -> Json:
        return {"runtime": self.name, "workloads": {}, "ports": {}, "processes": []} | state | {STARTING: identity(os.getpid())}

    def _undo(self, bringing: BringUp) -> None:
        """Nothing half-made stays; what the mesh kept does."""
        if bringing.project is not None:
            bringing.compose.down(bringing.project, "--timeout", "3")
        self.files.state.unlink(missing_ok=True)

    def _keep(self, state: Json, lock: IO[str], ports: PortClaims) -> None:
        """Start the keeper; it inherits lock and ports, so that folder and ports are taken without a gap, and while a container restarts."""
        with self.files.log("keeper").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "devmesh.runtimes.docker.keeper", str(self.compose_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=(lock.fileno(), *ports.inheritance),
            )  # fmt: skip
        self.files.write_state({**state, KEEPER: identity(process.pid)})

    async def down(self, *, volumes: bool) -> bool:
        state = self.files.read_state()
        if state is None:
            return False
        stopped = await asyncio.to_thread(self._down, state, volumes=volumes)
        await leave_primary(DockerPrimary, state, self.files)
        return stopped

    def _down(self, state: Json, *, volumes: bool) -> bool:
        if "project" in state:
            refuse_while_joined(state)
        for who in (STARTING, KEEPER):
            one = state.get(who)
            if one and one["pid"] != os.getpid():
                stop_all([(one["pid"], one["started"])], 60.0 if who == STARTING else 5.0)
        rendered = Path(state.get("rendered") or self.files.root / "docker" / "compose.yaml")
        if "project" in state and rendered.exists():
            Compose.find().down(Project(state["project"], rendered), *(["--volumes"] if volumes else []))
        self.files.state.unlink(missing_ok=True)
        return "project" in state

    def forget(self, kept: Json) -> None:
        Engine.connect().remove_volumes(kept["project"])

    # -- looking

    def _containers(self) -> dict[str, Container]:
        return {one.service: one for one in Engine.connect().containers(self.files.running_state()["project"])}

    async def state(self) -> Json:
        state, containers = self.files.running_state(), await asyncio.to_thread(self._containers)
        workloads = {name: one | current_url(one, containers) for name, one in state["workloads"].items()}
        return {**state, "workloads": workloads, "processes": [process_json(one) for one in containers.values()]}

    async def ask_sidecar(self, workload: str, face: str, path: str) -> str:
        """By curl inside the pod: the admin port is on its loopback only, and not every engine's addresses are reachable from here."""
        container = self._sidecar_container(workload)
        argv = ["curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{FACES[face]}{path}"]
        return await asyncio.to_thread(lambda: Engine.connect().exec(container, argv))

    def _sidecar_container(self, workload: str) -> str:
        return f"{self.files.running_state()['project']}-{self.files.running_state()['workloads'][workload]['sidecar']}-1"

    # -- acting

    async def act(self, action: str, target: str, *, alone: bool = False) -> list[str]:
        del alone  # the engine starts what it is told to, nothing else
        return await asyncio.to_thread(self._act, action, target)

    def _act(self, action: str, target: str) -> list[str]:
        engine, found = Engine.connect(), self._apps(target)
        for one in found:
            if action == "restart":
                engine.restart(one.id)
            elif action == "stop":
                engine.stop(one.id)
            else:
                engine.start(one.id)
        acted = [one.labels[WORKLOAD_LABEL] for one in found]
        if action == "restart":
            acted += restart_dependents(engine, self.files.running_state(), acted)
        return acted

    async def kill(self, target: str) -> list[str]:
        return await asyncio.to_thread(self._kill, target)

    def _kill(self, target: str) -> list[str]:
        engine, running = Engine.connect(), [one for one in self._apps(target) if one.state in ("running", "paused")]
        if not running:
            raise DevmeshError(f"{target} does not run", f"devmesh start {target}")
        for one in running:
            kill_app(engine, one)
        return [one.labels[WORKLOAD_LABEL] for one in running]

    async def hold(self) -> list[str]:
        state = self.files.running_state()
        async with Registry(f"http://127.0.0.1:{state['ports']['registry']}", self.files.mesh_token()) as registry:
            return await hold(registry, state["project"], self.files)

    def _apps(self, target: str) -> list[Container]:
        workloads: Mapping[str, Json] = self.files.running_state()["workloads"]
        names = [name for name, one in workloads.items() if target in (name, one["service"])]
        containers = self._containers()
        found = [containers[name] for name in names if name in containers and not workloads[name]["gateway"]]
        if not found:
            raise DevmeshError(f"no workload or service {target!r}", "devmesh status lists what there is")
        return found

    # -- logs

    def logs(self, query: LogQuery) -> Iterator[tuple[str, str]]:
        chosen = [one for one in self._containers().values() if self._is_wanted(one, query)]
        if not chosen:
            known = ", ".join(sorted({*self.files.running_state()["workloads"], *self.files.running_state().get("parts", {})}))
            raise DevmeshError(f"no logs of {query.service!r}", f"there are: {known}")
        yield from (self._followed if query.follow else self._merged)(chosen, query)

    def _is_wanted(self, one: Container, query: LogQuery) -> bool:
        role = one.labels.get(ROLE_LABEL, "")
        workload = one.labels.get(WORKLOAD_LABEL, "")
        if query.access and role not in ("sidecar", "gateway"):
            return False
        if query.service is None:
            return role != "pod"
        service = self.files.running_state()["workloads"].get(workload, {}).get("service")
        part = self.files.running_state().get("parts", {}).get(query.service)
        return query.service in (one.service, workload, service) or one.service == part

    def _lines(self, one: Container, query: LogQuery) -> Iterator[tuple[str, str, str]]:
        """(time, who, line). A sidecar's standard output is its access log."""
        is_sidecar = one.labels.get(ROLE_LABEL) in ("sidecar", "gateway")
        since = time.time_ns() / 1e9 - query.since if query.since is not None else None
        lines = Engine.connect().logs(
            one.id,
            stdout=query.access or not is_sidecar,
            stderr=not query.access,
            tail="all" if since is not None else query.tail,
            follow=query.follow,
            since=since,
        )
        return ((stamp, one.service, line) for stamp, line in lines)

    def _merged(self, containers: Sequence[Container], query: LogQuery) -> Iterator[tuple[str, str]]:
        """By the engine's own time stamps, which one clock makes."""
        for _, who, line in sorted(found for one in containers for found in self._lines(one, query)):
            yield who, line

    def _followed(self, containers: Sequence[Container], query: LogQuery) -> Iterator[tuple[str, str]]:
        lines: queue.Queue[tuple[str, str]] = queue.Queue(1000)

        def read(one: Container) -> None:
            for _, who, line in self._lines(one, query):
                lines.put((who, line))

        for one in containers:
            threading.Thread(target=read, args=(one,), daemon=True, name=f"logs of {one.service}").start()
        while True:
            yield lines.get()

    # -- becoming

    def curl(self, workload: str, arguments: Sequence[str]) -> NoReturn:
        """In the pod, as nobody: the app's own image need not have curl."""
        pod = self.files.running_state()["workloads"][workload]["pod"]
        self._become(pod, ["curl", "-sS", *arguments], ["-T", "--user", SOMEBODY])

    def execute(self, workload: str, argv: Sequence[str] | None) -> NoReturn:
        found = Engine.connect().containers(self.files.running_state()["project"], f"{WORKLOAD_LABEL}={workload}", f"{ROLE_LABEL}=app")
        refuse_unless_running(workload, found[0] if found else None)
        self._become(workload, argv or SHELL, [] if sys.stdin.isatty() else ["-T"])

    def _become(self, service: str, argv: Sequence[str], flags: Sequence[str]) -> NoReturn:
        state = self.files.running_state()
        command = Compose.find().arguments(Project(state["project"], Path(state["rendered"])), "exec", *flags, service, *argv)
        os.execv(command[0], command)  # noqa: S606 - no shell on purpose


def refuse_unless_running(workload: str, app: Container | None) -> None:
    """The engine's own words for that name its container by a number, and nothing to do."""
    if app is None:
        raise DevmeshError(f"the container of {workload} is gone", "devmesh down, then devmesh up")
    if app.state == "paused":
        raise DevmeshError(f"{workload} is paused", f"devmesh fault list, or docker unpause {app.name}")
    if app.state != "running":
        why = f": it ended with status {app.exit_code}" if app.state in ("exited", "restarting") else ""
        raise DevmeshError(f"{workload} does not run{why}", f"devmesh logs {workload}; devmesh start {workload}")


def refuse_while_joined(state: Json) -> None:
    """Raise DevmeshError naming remote projects on this mesh's networks, which the engine would not remove under them."""
    found = Engine.connect().projects_on(f"{state['project']}_{CONTROL_NETWORK}") - {state["project"]}
    if found and not state.get("primary"):
        names = ", ".join(sorted(found))
        raise DevmeshError(f"{names} has joined this mesh and is on its networks", f"devmesh down in the folder of {names} first")


def current_url(workload: Json, containers: Mapping[str, Container]) -> Json:
    """Where it is reached now: a port that the engine chose is another after the pod's restart."""
    pod = containers.get(workload["pod"])
    return {} if workload["gateway"] or pod is None else {"url": url_of(pod.published)}


def identity(pid: int) -> Json:
    return {"pid": pid, "started": start_time(pid)}


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM (a `down` meanwhile) ends `up` as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
