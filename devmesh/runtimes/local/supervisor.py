"""One supervisor a mesh: binds the sockets, starts everything, restarts what dies, stops it all at the end.

It is detached from the terminal and tells `devmesh up` what happens as JSON lines on its standard output until the mesh is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from pathlib import Path
from typing import IO, Any, TypeVar

import aiohttp

from devmesh.ca.files import write_private
from devmesh.config.container_keys import told
from devmesh.config.topology import GATEWAY, Gateways, check_local, load_topology
from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError
from devmesh.pods.preflight import explain, missing_tools
from devmesh.registry.client import Registry
from devmesh.registry.resources import StoredResource, replace_owner, write_mesh
from devmesh.runtimes.bootstrap import Servers
from devmesh.runtimes.contents import (
    CONTROL_PLANE_WORKLOAD,
    ControlPlaneView,
    kept_settings,
    load_resources,
    mesh_config,
)
from devmesh.runtimes.docker.compose import merged
from devmesh.runtimes.faults import expire_faults
from devmesh.runtimes.files import MeshFiles, last_lines
from devmesh.runtimes.local.addons import find, targets
from devmesh.runtimes.local.apps import Apps
from devmesh.runtimes.local.bootstrap import sidecar_bootstrap
from devmesh.runtimes.local.checks import Checks
from devmesh.runtimes.local.children import FOREIGN, UP_TIMEOUT, Children
from devmesh.runtimes.local.holding import Holding, kill_app
from devmesh.runtimes.local.launchers import Launchers
from devmesh.runtimes.local.leftovers import GRACE
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.order import to_stop
from devmesh.runtimes.local.plan import WorkloadPlan, close_all, plan_all
from devmesh.runtimes.local.pods import Pods
from devmesh.runtimes.local.ports import HTTPS_PORT
from devmesh.runtimes.local.primary import LocalPrimary
from devmesh.runtimes.local.servers import OwnServers
from devmesh.runtimes.local.starting import Starting
from devmesh.runtimes.primary import View, leave_primary
from devmesh.runtimes.processes import start_time, stop_all
from devmesh.runtimes.waiting import PATIENCE_SECONDS, Awaited, Wait, wait_timeout

Result = TypeVar("Result")


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, Result], name: str) -> AsyncIterator[asyncio.Task[Result]]:
    """The work under way; it does not outlive the block."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Supervisor:
    def __init__(
        self, compose_file: Path, files: MeshFiles, settings: dict[str, Any], report: IO[str], launchers: Launchers, began: float
    ) -> None:
        self.compose_file, self.files, self.settings = compose_file, files, settings
        self._report = report
        self._began = began
        self._launchers = launchers
        self._children = Children(
            files, launchers, self._again, self.save_soon, wait_timeout(settings, UP_TIMEOUT), told=settings.get("wait_timeout") is not None
        )
        self.processes, self.stopping, self.up_ended = self._children.processes, self._children.stopping, asyncio.Event()
        self._servers = OwnServers(files, self._children)
        self._pods = Pods(files, self._on_pod)
        self._checks = Checks(files, self._pods, self.save_soon)
        self._apps = Apps(files, self._children, self._pods, self._checks)
        self.holding = Holding(lambda: self._children.of_kind("app"), self._pods, self.save_soon)
        self.plans: dict[str, WorkloadPlan] = {}
        self._starting = Starting(self._children, self._apps, lambda: self.plans, self._until_synced, self._tell)
        self._commands: set[asyncio.Task[Any]] = set()
        self._mesh_id = str(uuid.uuid4())
        self.interception = "proxy"
        self._primary: LocalPrimary | None = None
        self._project = ""
        self._saving = False

    @property
    def ports(self) -> dict[str, int]:
        """Of the mesh's own servers."""
        return self._servers.ports

    # -- up --------------------------------------------------------------------------------------------------------

    def say(self, **event: Any) -> None:
        """Tell `up`; nobody listens any more once it has returned."""
        with contextlib.suppress(OSError, ValueError):
            self._report.write(json.dumps(event) + "\n")
            self._report.flush()

    def _tell(self, event: dict[str, Any]) -> None:
        self.say(**event)

    @contextlib.asynccontextmanager
    async def phase(self, name: str, kind: str = "ours") -> Any:
        """`kind`: the processes that this phase waits for."""
        started = time.monotonic()
        self.say(event="phase", name=name)
        teller = asyncio.create_task(self._tell_awaited(kind), name=f"tell who is awaited: {name}")
        try:
            yield
        finally:
            teller.cancel()
        self.say(event="phase_done", name=name, seconds=time.monotonic() - started)

    async def _tell_awaited(self, kind: str) -> None:
        awaited = Awaited(self._tell)
        while True:
            await asyncio.sleep(PATIENCE_SECONDS)
            awaited.see(one.awaited for one in self.processes.values() if one.kind == kind and one.is_awaited)

    def keep(self, claim: socket.socket) -> None:
        """Held until the last of the mesh's processes has ended, whatever becomes of this one."""
        self._launchers.keep(claim)

    async def up(self, number: int) -> None:
        profiles = self.settings.get("compose_profiles", ())
        whole_file = merged(self.compose_file, profiles)
        topology = load_topology(self.compose_file, number, profiles=profiles, merged=whole_file, gateways=Gateways.of(self.settings))
        check_local(topology)
        if keys := told(topology.workloads):
            self.say(event="note", message=f"without an engine nothing comes of {keys} (docs/pods.md)")
        binaries = find(self.settings.get("addons", ()))
        self._project = topology.name
        whole = await self._find_primary(topology)
        topology = whole.ours if whole else topology
        resources = [] if whole else load_resources(topology, lambda event: self.say(**event))
        self.say(event="phase_done", name="begun", seconds=time.monotonic() - self._began)
        self._launchers.listen(self._children.on_launcher)
        if self._primary is None:
            self._servers.bind(binaries)
        # Ours first: they have to wait for each other, and apps, once they start, leave little of the machine to anybody.
        async with meanwhile(self._start_own(topology, resources), "our own servers") as own:
            async with self.phase("pods and apps" if self._launchers.make_pods else "apps started"):
                await self._plan(topology, whole.whole if whole else topology)
                await self._starting.at_once(self._seen_by_sidecars(), self.compose_file.parent)
            tokens = await own or await self._join(topology)
        await self._servers.start_addons(self.plans)
        async with self.phase("sidecars", "sidecar"):
            for plan in self.plans.values():
                self._start_sidecar(plan, tokens)
            self.save()
            await self._children.all_ready("sidecar")
        async with self.phase("apps", "app"):
            failed = [name for name in await asyncio.gather(*map(self._starting.come_up, self.plans.values())) if name]
        async with self.phase("in sync", "none"):
            await self._synced(failed)
            await self._servers.addons_answer()
        self.save()
        if failed:
            raise self._apps.failed_at_start([self.plans[name] for name in failed])
        self.say(event="done", seconds=time.monotonic() - self._began)

    async def _find_primary(self, topology: Topology) -> View | None:
        """Profile `remote`: the mesh whose control plane is to be ours."""
        address = self.settings.get("remotePilotAddress")
        if not address:
            return None
        self._primary = LocalPrimary.of(address, self.files)
        view = await self._primary.enter(topology, self.files, self._tell)
        self._servers.ports, self._mesh_id = dict(self._primary.state["ports"]), self._primary.state["mesh_id"]
        self.settings = {**self.settings, "mesh_config": dict(view.settings)}
        return view

    async def _join(self, topology: Topology) -> dict[str, Path]:
        """Make the first mesh know our workloads; where each one's token is."""
        if (primary := self._primary) is None:
            raise AssertionError("a mesh of its own has tokens")
        async with self.phase(f"control plane of {primary.folder.name}"):
            (self.files.root / "root.pem").write_bytes(primary.root)
            tokens = self._servers.keep_tokens(await primary.tokens(plan.workload for plan in self.plans.values()))
            await primary.join(topology, targets(self.plans))
        return tokens

    async def _start_own(self, topology: Topology, resources: list[StoredResource]) -> dict[str, Path]:
        """Registry, CA, collector and control plane; where each workload's token is. A remote mesh has none of them."""
        if self._primary is not None:
            return {}
        token, servers, traces_url = self.files.mesh_token(), self._servers, self._seen_by_sidecars().traces_url
        async with self.phase("registry, CA, collector"):
            await servers.start_registry(token)
            tokens = servers.mint_tokens(topology.workloads)
            servers.start_ca(traces_url)
            servers.start_collector()
            await servers.ready()
        async with self.phase("control plane"):
            async with Registry(servers.registry_url, token) as registry:
                await registry.wait_leader()
                await write_mesh(registry, self._mesh_id, topology.to_json(), self._mesh_config())
                await replace_owner(registry, "mesh", resources)
                await expire_faults(registry)
            servers.start_control(tokens[CONTROL_PLANE_WORKLOAD], traces_url)
        return tokens

    def _mesh_config(self) -> dict[str, Any]:
        return mesh_config(self.settings, self._mesh_id)

    def _seen_by_sidecars(self) -> Servers:
        return self._servers.seen_by_sidecars(self._mesh_id, self._mesh_config())

    async def _plan(self, topology: Topology, whole: Topology) -> None:
        """Choose the interception: pods where they can be made, which only making them tells."""
        wanted = self.settings.get("interception", "auto")
        refusal = missing_tools() if self._launchers.make_pods else None
        if self._launchers.make_pods and refusal is None:
            self.plans = plan_all(topology, "namespace")
            problem = await self._make_pods(whole)
            if problem is None:
                self.interception = "namespace"
                return
            refusal = explain(problem)
            await self._give_up_pods()
        if refusal is not None:
            if wanted == "namespace":
                raise DevmeshError(refusal.why, refusal.hint)
            self.say(event="note", message=f"interception proxy: {refusal}")
        self.plans = plan_all(topology)

    async def _make_pods(self, whole: Topology) -> str | None:
        self._pods.know(whole)
        started = time.monotonic()
        for plan in self.plans.values():
            if plan.interception == "namespace":
                self._fork_pod(plan)
        problem = await self._pods.all_made()
        made = [self._pods[name].seconds for name in self.plans if name in self._pods]
        if problem is None and made:
            text = f"{len(made)} pods in {time.monotonic() - started:.2f} s, the slowest {max(made) * 1000:.0f} ms"
            self.say(event="note", message=text)
            for note in sorted({note for name in self.plans if name in self._pods for note in self._pods[name].notes}):
                self.say(event="note", message=f"in the pods, {note}")
        return problem

    def _fork_pod(self, plan: WorkloadPlan) -> None:
        arguments, theirs = self._pods.ask(plan)
        with theirs:
            self._children.fork(f"{plan.workload.name}-pod", "pod", arguments, [theirs], kind="pod")
        self.processes[f"{plan.workload.name}-pod"].sockets = []

    async def _give_up_pods(self) -> None:
        pods = self._children.of_kind("pod")
        for process in pods:
            process.wanted = False
        await asyncio.to_thread(stop_all, [(p.pid, p.started) for p in pods if p.pid], GRACE)
        for process in pods:
            del self.processes[process.name]
        self._pods.close()
        close_all(self.plans)

    def _on_pod(self, name: str, event: dict[str, Any]) -> None:
        """What a pod's init says of itself and of its app."""
        if event["event"] == "pod":
            self._pod_made(name)
            return
        self._apps.on_event(name, event)
        if event["event"] != "exited":
            self.save_soon()
        if event["event"] == "listening":
            self._warn_of_loopback(name, event["addresses"])

    def _warn_of_loopback(self, name: str, addresses: dict[str, list[str]]) -> None:
        unreachable = [port for port, found in addresses.items() if set(found) <= {"127.0.0.1", "::1"}]
        if unreachable:
            self.say(
                event="note",
                message=f"{name} listens on 127.0.0.1:{unreachable[0]} only: its sidecar, as Istio's, connects to the pod's own address; "
                "have it listen on 0.0.0.0",
            )

    def _pod_made(self, name: str) -> None:
        """A pod that was made again: its sidecar needs the new sockets, its app a new start."""
        process = self.processes[f"{name}-pod"]
        process.ready = True
        sidecar = self.processes.get(f"{name}-sidecar")
        if sidecar is not None:
            self._children.task(self._rejoin(name, sidecar), f"rejoin {name}")

    async def _rejoin(self, name: str, sidecar: Managed) -> None:
        plan = self.plans[name]
        sidecar.sockets = [one.sock for one in plan.sockets]
        sidecar.request["arguments"]["sockets"] = [one.to_json() for one in plan.sockets]
        await self._children.all_known()  # one that has just been asked for has the dead pod's sockets, too
        await asyncio.to_thread(stop_all, [(sidecar.pid, sidecar.started)], GRACE)  # its end starts it again
        app = self.processes[name]
        if app.wanted and app.born and not app.over:
            await self._apps.spawn(app)

    async def _again(self, process: Managed) -> None:
        """An app or a pod that has died starts anew; what runs in a pod has died with it."""
        if process.kind == "app":
            await self._app_again(process)
            return
        name = process.name.removesuffix("-pod")
        if self.processes[name].born and self.processes[name].status is None:
            self._children.exited(self.processes[name], -signal.SIGKILL)
        self._fork_pod(self.plans[name])

    async def _app_again(self, process: Managed) -> None:
        await self._apps.spawn(process)
        self.save()
        await self._apps.listens(self.plans[process.name])

    # -- the parts -------------------------------------------------------------------------------------------------

    def _start_sidecar(self, plan: WorkloadPlan, tokens: dict[str, Path]) -> None:
        workload = plan.workload
        bootstrap = self.files.workload(workload.name) / "bootstrap.json"
        access_log = self.files.access_log(workload.name)
        write_private(
            bootstrap,
            json.dumps(
                sidecar_bootstrap(
                    plan,
                    self._seen_by_sidecars(),
                    self._servers.ca_address(tokens[workload.name]),
                    access_log,
                    self.compose_file.resolve().parent,
                ),
                indent=1,
            ).encode(),
            durable=False,
        )
        arguments = {"bootstrap": str(bootstrap), "sockets": [one.to_json() for one in plan.sockets]}
        self._children.fork(f"{workload.name}-sidecar", "sidecar", arguments, [one.sock for one in plan.sockets], kind="sidecar")

    async def _synced(self, failed: list[str]) -> None:
        """Until the control plane has every sidecar's acknowledgement and the health of every workload whose app has not failed."""
        await self._until_synced(
            self.plans, {name for name, plan in self.plans.items() if not plan.workload.gateway and name not in failed}
        )

    async def _until_synced(self, names: Iterable[str], wanted: Collection[str]) -> None:
        """Until these have acknowledged what they were sent, and those wanted get traffic."""
        wait = Wait(self._tell, self._children.limit, lambda name: last_lines(self.files.log(name)))
        headers = {"Authorization": f"Bearer {self.files.mesh_token()}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            view = ControlPlaneView(session, f"http://127.0.0.1:{self.ports['control']}")
            await wait.until_nothing_lacks(lambda: view.missing(names, wanted))

    # -- commands --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        gateway = self.plans.get(GATEWAY)
        return {
            "supervisor": {"pid": os.getpid(), "started": start_time(os.getpid())},
            **self._launchers.state(),
            "interception": self.interception,
            "compose_file": str(self.compose_file),
            "mesh_id": self._mesh_id,
            "settings": kept_settings(self.settings),
            "ports": self.ports,
            "project": self._project,
            "primary": str(self._primary.folder) if self._primary else None,
            "gateway_url": gateway.url() if gateway else self._of_primary("gateway_url"),
            "gateway_https_port": gateway.published_port(HTTPS_PORT) if gateway else self._of_primary("gateway_https_port"),
            "workloads": {name: self._workload_state(plan) for name, plan in self.plans.items()},
            "processes": [process.to_json() for process in self.processes.values()],
            "stop_order": self._stop_order(),
        }

    def _stop_order(self) -> list[list[str]]:
        return to_stop(plan.workload for plan in self.plans.values())

    def _of_primary(self, key: str) -> Any:
        """What a remote mesh has of its first one's."""
        return self._primary.state.get(key) if self._primary else None

    def _workload_state(self, plan: WorkloadPlan) -> dict[str, Any]:
        ports = {one.role: one.port for one in plan.sockets if one.role in ("admin", "health", "prometheus")}
        workload = plan.workload
        return {
            "service": workload.service,
            "version": workload.version,
            "namespace": workload.namespace,
            "ip": workload.ip,
            "spiffe_id": workload.spiffe_id,
            "gateway": workload.gateway,
            "url": plan.url(),
            "interception": plan.interception,
            "init_pid": self._pods[workload.name].init_pid if workload.name in self._pods else None,
            **ports,
        }

    def save(self) -> None:
        """Write down what runs, for commands and for whoever comes after a kill."""
        self._saving = False
        self.files.write_state(self.state())

    def save_soon(self) -> None:
        """Once for all the news that have come by now: each of a hundred workloads has several."""
        if not self._saving:
            self._saving = True
            asyncio.get_running_loop().call_soon(self._save_what_is_new)

    def _save_what_is_new(self) -> None:
        if self._saving:
            self.save()

    async def serve_commands(self) -> asyncio.Server:
        self.files.control_socket.unlink(missing_ok=True)
        with self.files.control_address() as address:
            return await asyncio.start_unix_server(self._command, address)

    async def answered(self) -> None:
        """Let the commands under way have their answers."""
        if self._commands:
            await asyncio.wait(self._commands, timeout=GRACE)

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._commands.add(task)
            task.add_done_callback(self._commands.discard)
        try:
            command = json.loads(await reader.readline() or b"{}")
            answer = await self._run_command(command)
        except DevmeshError as error:
            answer = {"error": error.message, "hint": error.hint}
        except (ValueError, KeyError) as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"error": f"{self.files.root}: {error.strerror or error}", "hint": f"df -h {self.files.root}"}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

    async def _run_command(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["command"] == "status":
            return self.state()
        if command["command"] == "down":
            self.stopping.set()
            await self.stop()
            return {"stopped": True}
        if command["command"] == "hold":
            async with Registry(self._servers.registry_url, self.files.mesh_token()) as registry:
                return {"held": await self.holding.look(registry)}
        names = [name for name, plan in self.plans.items() if command.get("target") in (name, plan.workload.service)]
        if not names:
            return {"error": f"no workload or service {command.get('target')!r}"}
        if not any(name in self.processes for name in names):
            return {"error": f"{', '.join(names)} is a gateway: there is no app to {command['command']}"}
        if command["command"] == "kill":
            killed = [name for name in names if await kill_app(self.processes[name], self._pods)]
            return {"workloads": killed} if killed else {"error": f"{', '.join(names)} does not run"}
        if command["command"] == "start" and not command.get("alone"):
            started = [name async for name in self._starting.start(names, self._act)]
            return {"workloads": started + [name for name in names if name not in started]}
        for name in names:
            await self._act(command["command"], self.processes[name])
        if command["command"] == "restart":
            names += [name async for name in self._starting.restart_dependents(names, self._act)]
        return {"workloads": names}

    async def _act(self, action: str, process: Managed) -> None:
        if action == "start" and process.runs:
            return
        process.wanted = False
        process.changed.set()  # who waits for it, or with it for others, need not any more
        await self._children.all_known()  # it may be starting again
        if action in ("stop", "restart") and process.pid:
            await asyncio.to_thread(stop_all, [(process.pid, process.started)], GRACE)
            await self._children.ended(process)
        if action in ("start", "restart"):
            process.wanted = True
            await self._app_again(process)

    async def stop(self) -> None:
        """Apps, who depends before whom it depends on, then sidecars (they drain), then our own, then the launcher."""
        await self.up_ended.wait()
        for process in self.processes.values():
            process.wanted = False
        await self._checks.close()
        await self._children.all_known()
        apps = [[self.processes[name] for name in names if name in self.processes] for names in self._stop_order()]
        for group in (*apps, *(self._children.of_kind(*kinds) for kinds in (("sidecar",), ("pod",), ("ours", *FOREIGN)))):
            await asyncio.to_thread(stop_all, [(one.pid, one.started) for one in group if one.pid], GRACE)
        self._pods.close()
        await leave_primary(LocalPrimary, self.state(), self.files)
        await self._launchers.end()
        for path in (self.files.state, self.files.control_socket):
            path.unlink(missing_ok=True)
        self._saving = False
