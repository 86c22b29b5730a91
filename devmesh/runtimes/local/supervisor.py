"""One supervisor a mesh: binds the sockets, starts everything, restarts what dies, stops it all at the end.

It is detached from the terminal and tells `devmesh up` what happens as JSON lines on its standard output until the mesh is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import aiohttp

from devmesh.ca.files import write_private
from devmesh.config.topology import GATEWAY, Gateways, check_local, load_topology
from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError, InternalError
from devmesh.pods.preflight import explain, missing_tools
from devmesh.registry.client import Registry
from devmesh.registry.consul import ConsulPorts, consul_command
from devmesh.registry.resources import StoredResource, replace_owner, write_mesh
from devmesh.runtimes.bootstrap import Servers
from devmesh.runtimes.contents import (
    CONTROL_PLANE_WORKLOAD,
    ControlPlaneView,
    kept_settings,
    load_resources,
    mesh_config,
    mint_tokens,
)
from devmesh.runtimes.docker.compose import merged
from devmesh.runtimes.faults import expire_faults
from devmesh.runtimes.files import MeshFiles, last_lines
from devmesh.runtimes.local.addons import Addon, all_answer, command, environment, find, plan_addons, targets, write_settings
from devmesh.runtimes.local.bootstrap import app_environment, pod_environment, sidecar_bootstrap
from devmesh.runtimes.local.claims import claim_port
from devmesh.runtimes.local.holding import Holding, kill_app
from devmesh.runtimes.local.launchers import Launchers
from devmesh.runtimes.local.leftovers import GRACE
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.plan import WorkloadPlan, bind_preferring, close_all, plan_all, port_of
from devmesh.runtimes.local.pods import Pods
from devmesh.runtimes.local.ports import HTTPS_PORT, REGISTRY_PORT
from devmesh.runtimes.local.primary import LocalPrimary
from devmesh.runtimes.primary import View, leave_primary
from devmesh.runtimes.processes import start_time, stop_all
from devmesh.runtimes.waiting import PATIENCE_SECONDS, Awaited, Wait
from devmesh.sidecar.bootstrap import CONTROL_PLANE

UP_TIMEOUT = 30.0  # seconds until `up` gives up on readiness


class Supervisor:
    def __init__(
        self,
        compose_file: Path,
        files: MeshFiles,
        settings: dict[str, Any],
        report: IO[str],
        launchers: Launchers,
    ) -> None:
        self.compose_file, self.files, self.settings = compose_file, files, settings
        self._report = report
        self._began = time.monotonic()
        self.processes: dict[str, Managed] = {}
        self.plans: dict[str, WorkloadPlan] = {}
        self.ports: dict[str, int] = {}
        self._socks: dict[str, list[socket.socket]] = {}
        self._claims: list[socket.socket] = []
        self._launchers = launchers
        self._pods = Pods(files, self._on_pod)
        self.holding = Holding(lambda: [one for one in self.processes.values() if one.kind == "app"], self._pods, self.save)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.stopping = asyncio.Event()
        self._mesh_id = str(uuid.uuid4())
        self._addons: dict[str, Addon] = {}
        self.interception = "proxy"
        self._primary: LocalPrimary | None = None
        self._project = ""

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
            awaited.see(name for name, process in self.processes.items() if process.kind == kind and not process.ready)

    async def up(self, number: int) -> None:
        topology = load_topology(self.compose_file, number, merged=merged(self.compose_file), gateways=Gateways.of(self.settings))
        check_local(topology)
        binaries = find(self.settings.get("addons", ()))
        self._project = topology.name
        whole = await self._find_primary(topology)
        topology = whole.ours if whole else topology
        resources = [] if whole else load_resources(topology, lambda event: self.say(**event))
        async with self.phase("plan"):
            self._launchers.listen(self._on_launcher)
            if self._primary is None:
                self._bind_own()
                self._plan_addons(binaries)
            await self._plan(topology, whole.whole if whole else topology)
            for plan in self.plans.values():
                await self._start_app(plan)
        tokens = await (self._join(self._primary, topology) if self._primary else self._start_own(topology, resources))
        async with self.phase("sidecars", "sidecar"):
            for plan in self.plans.values():
                self._start_sidecar(plan, tokens)
            self.save()
            await self._all_ready("sidecar")
        async with self.phase("apps", "app"):
            failed = [name for name in await asyncio.gather(*(self._app_listens(plan) for plan in self.plans.values())) if name]
        async with self.phase("in sync", "none"):
            await self._synced(failed)
            await all_answer(self._addons, self._is_lost, self.files.log)
        self.save()
        if failed:
            raise self._failed_at_start(failed)
        self.say(event="done", seconds=time.monotonic() - self._began)

    async def _find_primary(self, topology: Topology) -> View | None:
        """Profile `remote`: the mesh whose control plane is to be ours."""
        address = self.settings.get("remotePilotAddress")
        if not address:
            return None
        self._primary = LocalPrimary.of(address, self.files)
        view = await self._primary.enter(topology, self.files, self._tell)
        self.ports, self._mesh_id = dict(self._primary.state["ports"]), self._primary.state["mesh_id"]
        self.settings = {**self.settings, "mesh_config": dict(view.settings)}
        return view

    async def _join(self, primary: LocalPrimary, topology: Topology) -> dict[str, Path]:
        """Make the first mesh know our workloads; where each one's token is."""
        async with self.phase(f"control plane of {primary.folder.name}"):
            await self._loaded_or_fail()
            (self.files.root / "root.pem").write_bytes(primary.root)
            tokens = self._keep_tokens(await primary.tokens(plan.workload for plan in self.plans.values()))
            await primary.join(topology, targets(self.plans))
        return tokens

    async def _start_own(self, topology: Topology, resources: list[StoredResource]) -> dict[str, Path]:
        """Registry, CA, collector and control plane; where each workload's token is."""
        token = self.files.mesh_token()
        async with self.phase("registry, CA, collector"):
            await self._loaded_or_fail()
            registry_url = await self._start_registry(token)
            self._fork("collector", "collector", {"token_file": str(self.files.token)}, self._socks["collector"])
            tokens = self._tokens()
            self._fork(
                "ca",
                "ca",
                {"directory": str(self.files.root / "ca"), "token_file": str(self.files.token), "otlp_url": self._servers().traces_url},
                self._socks["ca"],
            )
            await self._ready("ca")
            (self.files.root / "root.pem").write_bytes((self.files.root / "ca" / "root.pem").read_bytes())
        async with self.phase("control plane"):
            async with Registry(registry_url, token) as registry:
                await registry.wait_leader()
                await write_mesh(registry, self._mesh_id, topology.to_json(), self._mesh_config())
                await replace_owner(registry, "mesh", resources)
                await expire_faults(registry)
            self._start_control(registry_url, tokens)
            await self._start_addons()
        return tokens

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
            self._fork(f"{plan.workload.name}-pod", "pod", arguments, [theirs], kind="pod")
        self.processes[f"{plan.workload.name}-pod"].sockets = []

    async def _give_up_pods(self) -> None:
        pods = [process for process in self.processes.values() if process.kind == "pod"]
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
        process = self.processes[name]
        if event["event"] == "app":
            process.pid = self._pods.outside_pid(name, event["pid"])
            process.started = start_time(process.pid) or 0
            process.ready = not process.listens  # nothing else is to be seen of it
            self.save()
        elif event["event"] == "listening":
            process.ready = True
            self.save()
            self._warn_of_loopback(name, event["addresses"])
        elif event["event"] == "exited":
            self._exited(process, event["status"])
        process.changed.set()

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
            self._task(self._rejoin(name, sidecar), f"rejoin {name}")

    async def _rejoin(self, name: str, sidecar: Managed) -> None:
        plan = self.plans[name]
        sidecar.sockets = [one.sock for one in plan.sockets]
        sidecar.request["arguments"]["sockets"] = [one.to_json() for one in plan.sockets]
        await asyncio.to_thread(stop_all, [(sidecar.pid, sidecar.started)], GRACE)  # its end starts it again
        await self._spawn_app(self.processes[name])

    def _bind_own(self) -> None:
        for name, ports in (("registry", (REGISTRY_PORT,)), ("ca", (15011,)), ("control", (15012, 15014)), ("collector", (4318, 16686))):
            self._socks[name] = [bind_preferring("127.0.0.1", port) for port in ports]
        for key, name, index in (
            ("registry", "registry", 0),
            ("ca", "ca", 0),
            ("xds", "control", 0),
            ("control", "control", 1),
            ("otlp", "collector", 0),
            ("query", "collector", 1),
        ):
            self.ports[key] = port_of(self._socks[name][index])

    def _servers(self) -> Servers:
        config = self._mesh_config()
        xds, otlp = f"https://127.0.0.1:{self.ports['xds']}", f"http://127.0.0.1:{self.ports['otlp']}"
        return Servers(xds, otlp, self._mesh_id, config.get("access_log_encoding", "TEXT"), config.get("secret_ttl"))

    def _mesh_config(self) -> dict[str, Any]:
        return mesh_config(self.settings, self._mesh_id)

    async def _loaded_or_fail(self) -> None:
        try:
            await asyncio.wait_for(self._launchers.loaded(), 20)
        except TimeoutError as error:
            raise InternalError(
                f"the launcher did not start:\n{self._last_lines('launcher')}", f"see {self.files.log('launcher')}"
            ) from error

    def _on_launcher(self, event: dict[str, Any]) -> None:
        process = self.processes.get(event["name"])
        if process is None:  # one we gave up
            return
        if event["event"] == "started":
            process.pid, process.started = event["pid"], start_time(event["pid"]) or 0
            self.save()
        elif event["event"] == "ready":
            process.ready = True
        elif event["pid"] == process.pid or not process.pid:
            self._exited(process, event["status"])
        process.changed.set()

    def _fork(self, name: str, entry: str, arguments: dict[str, Any], sockets: list[socket.socket], kind: str = "ours") -> None:
        process = self.processes.setdefault(name, Managed(name, kind))
        process.request = {"name": name, "entry": entry, "arguments": arguments, "log": str(self.files.log(name))}
        process.sockets = sockets
        self._send(process)

    def _send(self, process: Managed) -> None:
        process.begin(time.monotonic())
        self._launchers.fork(process.request, process.sockets, pod=process.kind == "pod")

    def _exited(self, process: Managed, status: int) -> None:
        process.ended(status)
        if not process.wanted or self.stopping.is_set() or self._comes_with_its_pod(process):
            return
        self._task(self._restart(process, process.next_wait(time.monotonic())), f"restart {process.name}")

    def _comes_with_its_pod(self, process: Managed) -> bool:
        pod = self.processes.get(f"{process.name}-pod")
        return process.kind == "app" and pod is not None and pod.status is not None

    async def _restart(self, process: Managed, wait: float) -> None:
        await asyncio.sleep(wait)
        if not process.wanted or self.stopping.is_set():
            return
        process.restarts += 1
        if process.kind == "app":
            await self._spawn_app(process)
            self.save()
            await self._app_listens(self.plans[process.name])
        elif process.kind in ("consul", "addon"):
            await self._spawn_foreign(process)
            self.save()
        elif process.kind == "pod":
            name = process.name.removesuffix("-pod")
            self._exited(self.processes[name], -signal.SIGKILL)
            self._fork_pod(self.plans[name])
        else:
            self._send(process)

    def _task(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the parts -------------------------------------------------------------------------------------------------

    async def _start_registry(self, token: str) -> str:
        binary = shutil.which("consul")
        if binary is None:
            self._fork(
                "registry",
                "registry",
                {"directory": str(self.files.root / "registry"), "token_file": str(self.files.token)},
                self._socks["registry"],
            )
            await self._ready("registry")
            return f"http://127.0.0.1:{self.ports['registry']}"
        for sock in self._socks["registry"]:
            sock.close()  # Consul binds by itself
        claimed = [claim_port() for _ in range(3)]
        self._claims += [held for _, held in claimed]
        http, server, serf = (port for port, _ in claimed)
        if self.ports["registry"] != REGISTRY_PORT:
            self.ports["registry"] = http
        ports = ConsulPorts(self.ports["registry"], server, serf)
        command = consul_command(Path(binary), self.files.root / "consul", ports, token)
        request = {"argv": list(command.argv), "environment": os.environ.copy()}
        process = self.processes["registry"] = Managed("registry", "consul", request=request)
        await self._spawn_foreign(process)
        return f"http://127.0.0.1:{ports.http}"

    async def _spawn_foreign(self, process: Managed) -> None:
        """Somebody else's server, which tells us nothing."""
        await self._spawn(process, process.request["argv"], process.request["environment"], self.files.root)
        process.ready = True

    def _plan_addons(self, binaries: dict[str, Path]) -> None:
        self._addons = plan_addons(binaries, self.files.root)
        self._claims += [one.held for one in self._addons.values() if one.held is not None]
        self.ports |= {name: one.port for name, one in self._addons.items()}

    def _is_lost(self, addon: str) -> bool:
        return self.processes[addon].restarts > 1 or time.monotonic() > self._began + UP_TIMEOUT

    async def _start_addons(self) -> None:
        write_settings(self._addons, self.plans, self.ports["control"])
        for name, one in self._addons.items():
            if one.held is not None and one.held.family == socket.AF_INET:
                one.held.close()
            request = {"argv": command(one), "environment": environment(one, os.environ)}
            process = self.processes[name] = Managed(name, "addon", request=request)
            await self._spawn_foreign(process)

    def _tokens(self) -> dict[str, Path]:
        return self._keep_tokens(mint_tokens(self.files.root / "ca" / "tokens.json", (plan.workload for plan in self.plans.values())))

    def _keep_tokens(self, tokens: Mapping[str, str]) -> dict[str, Path]:
        """Where each workload's is."""
        out = {}
        for name, token in tokens.items():
            out[name] = self.files.workload(name) / "token"
            write_private(out[name], token.encode())
        return out

    def _ca_address(self, token: Path) -> dict[str, str]:
        return {"url": f"https://127.0.0.1:{self.ports['ca']}", "root_file": str(self.files.root / "root.pem"), "token_file": str(token)}

    def _start_control(self, registry_url: str, tokens: dict[str, Path]) -> None:
        arguments = {
            "registry_url": registry_url,
            "token_file": str(self.files.token),
            "ca": self._ca_address(tokens[CONTROL_PLANE_WORKLOAD]),
            "spiffe_id": str(CONTROL_PLANE),
            "otlp_url": self._servers().traces_url,
        }
        self._fork("control", "control", arguments, self._socks["control"])

    def _start_sidecar(self, plan: WorkloadPlan, tokens: dict[str, Path]) -> None:
        workload = plan.workload
        bootstrap = self.files.workload(workload.name) / "bootstrap.json"
        access_log = self.files.access_log(workload.name)
        write_private(
            bootstrap,
            json.dumps(
                sidecar_bootstrap(
                    plan, self._servers(), self._ca_address(tokens[workload.name]), access_log, self.compose_file.resolve().parent
                ),
                indent=1,
            ).encode(),
        )
        arguments = {"bootstrap": str(bootstrap), "sockets": [one.to_json() for one in plan.sockets]}
        self._fork(f"{workload.name}-sidecar", "sidecar", arguments, [one.sock for one in plan.sockets], kind="sidecar")

    async def _start_app(self, plan: WorkloadPlan) -> None:
        workload = plan.workload
        if workload.command is None:
            return
        argv = list(workload.command)
        if argv[0] in ("python", "python3"):
            argv[0] = sys.executable
        process = self.processes[workload.name] = Managed(workload.name, "app", listens=bool(plan.app_ports))
        write_private(self.files.environment(workload.name), json.dumps(pod_environment(plan, self._servers())).encode(), durable=False)
        process.request = {
            "argv": argv,
            "environment": app_environment(plan, self._servers()),
            "cwd": workload.working_dir or str(self.compose_file.parent),
        }
        await self._spawn_app(process)

    async def _spawn_app(self, process: Managed) -> None:
        if process.name in self._pods:
            self._start_in_pod(process)
            return
        await self._spawn(process, process.request["argv"], process.request["environment"], Path(process.request["cwd"]))

    def _start_in_pod(self, process: Managed) -> None:
        process.begin(time.monotonic())
        fd = os.open(self.files.log(process.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._pods.start_app(process.name, process.request, fd)
        except OSError:  # the pod has just ended: the app starts with the next one
            process.status = -signal.SIGKILL
        finally:
            os.close(fd)

    async def _spawn(self, process: Managed, argv: list[str], environment: dict[str, str], cwd: Path) -> None:
        process.begin(time.monotonic())
        fd = os.open(self.files.log(process.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            child = await asyncio.create_subprocess_exec(
                *argv, env=environment, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=fd, stderr=fd, start_new_session=True
            )
        except OSError as error:
            os.write(fd, f"cannot start {argv[0]}: {error}\n".encode())
            self._exited(process, 127)
            return
        finally:
            os.close(fd)
        process.pid, process.started = child.pid, start_time(child.pid) or 0
        process.ready = process.kind == "app" and not process.listens
        self._task(self._wait(process, child), f"wait for {process.name}")

    async def _wait(self, process: Managed, child: asyncio.subprocess.Process) -> None:
        self._exited(process, await child.wait())

    # -- readiness -------------------------------------------------------------------------------------------------

    async def _ready(self, name: str) -> None:
        process = self.processes[name]
        deadline = self._began + UP_TIMEOUT
        while not process.ready:
            process.changed.clear()
            if process.restarts > 1 or time.monotonic() > deadline:
                raise DevmeshError(f"{name} does not become ready; its last lines:\n{self._last_lines(name)}", f"devmesh logs {name}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.changed.wait(), 0.5)

    async def _all_ready(self, kind: str) -> None:
        await asyncio.gather(*(self._ready(name) for name, process in self.processes.items() if process.kind == kind))

    def _failed_at_start(self, names: list[str]) -> DevmeshError:
        found = [(name, self.processes[name].how_it_failed(self.plans[name].app_ports, UP_TIMEOUT)) for name in names]
        parts = [f"{name} {how}; its last lines:\n{self._last_lines(name)}" for name, how in found]
        return DevmeshError("\n".join(parts) + "\nThe rest of the mesh runs.", f"devmesh logs {names[0]}")

    def _last_lines(self, name: str) -> str:
        return "\n".join(last_lines(self.files.log(name)))

    async def _app_listens(self, plan: WorkloadPlan) -> str | None:
        process = self.processes.get(plan.workload.name)
        if process is None or not plan.app_ports:
            return None
        if plan.interception == "namespace":
            return await self._pod_app_listens(process)
        port = next(iter(plan.app_ports.values()))
        deadline = time.monotonic() + UP_TIMEOUT
        while time.monotonic() < deadline:
            if process.status is not None:
                return process.name
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)  # between looks at an app that only its port tells about
            else:
                writer.close()
                process.ready = True
                return None
        return process.name

    async def _pod_app_listens(self, process: Managed) -> str | None:
        try:
            async with asyncio.timeout(UP_TIMEOUT):
                while not process.ready and process.status is None:
                    process.changed.clear()
                    await process.changed.wait()
        except TimeoutError:
            return process.name
        return process.name if process.status is not None else None

    async def _synced(self, failed: list[str]) -> None:
        """Until the control plane has every sidecar's acknowledgement and the health of every workload whose app has not failed."""
        wanted = {name for name, plan in self.plans.items() if not plan.workload.gateway and name not in failed}
        wait = Wait(self._tell, UP_TIMEOUT, lambda name: last_lines(self.files.log(name)))
        headers = {"Authorization": f"Bearer {self.files.mesh_token()}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            view = ControlPlaneView(session, f"http://127.0.0.1:{self.ports['control']}")
            await wait.until_nothing_lacks(lambda: view.missing(self.plans, wanted))

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
        }

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
        self.files.write_state(self.state())

    async def serve_commands(self) -> asyncio.Server:
        self.files.control_socket.unlink(missing_ok=True)
        return await asyncio.start_unix_server(self._command, self.files.control_socket)

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            command = json.loads(await reader.readline() or b"{}")
            answer = await self._run_command(command)
        except DevmeshError as error:
            answer = {"error": error.message}
        except (ValueError, KeyError) as error:
            answer = {"error": str(error)}
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
            async with Registry(f"http://127.0.0.1:{self.ports['registry']}", self.files.mesh_token()) as registry:
                return {"held": await self.holding.look(registry)}
        names = [name for name, plan in self.plans.items() if command.get("target") in (name, plan.workload.service)]
        if not names:
            return {"error": f"no workload or service {command.get('target')!r}"}
        if command["command"] == "kill":
            killed = [name for name in names if await kill_app(self.processes[name], self._pods)]
            return {"workloads": killed} if killed else {"error": f"{', '.join(names)} does not run"}
        for name in names:
            await self._act(command["command"], self.processes[name])
        return {"workloads": names}

    async def _act(self, action: str, process: Managed) -> None:
        process.wanted = False
        if action in ("stop", "restart") and process.pid:
            await asyncio.to_thread(stop_all, [(process.pid, process.started)], GRACE)
        if action in ("start", "restart"):
            process.wanted = True
            await self._spawn_app(process)
            self.save()
            await self._app_listens(self.plans[process.name])

    async def stop(self) -> None:
        """Apps, then sidecars (they drain), then our own, then the launcher."""
        for process in self.processes.values():
            process.wanted = False
        for kinds in (("app",), ("sidecar",), ("pod",), ("ours", "consul", "addon")):
            found = [(p.pid, p.started) for p in self.processes.values() if p.kind in kinds and p.pid]
            await asyncio.to_thread(stop_all, found, GRACE)
        self._pods.close()
        await leave_primary(LocalPrimary, self.state(), self.files)
        await self._launchers.end()
        for path in (self.files.state, self.files.control_socket):
            path.unlink(missing_ok=True)
