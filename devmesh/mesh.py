"""A running mesh as one object: what the CLI and tests do with it."""

from __future__ import annotations

import asyncio
import difflib
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.config.analysis import analyze
from devmesh.config.kinds import DEVMESH
from devmesh.config.model import Diagnostic, Resource, ResourceKey
from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.registry.resources import (
    GENERATION,
    MESH_ID,
    StoredResource,
    apply_resources,
    delete_resources,
    list_resources,
    read_json,
    write_resources,
)
from devmesh.runtimes.choose import runtime_of
from devmesh.runtimes.fetch import fetch, no_answer
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.runtime import LogQuery, Runtime
from devmesh.runtimes.waiting import LAST_LINES, Lack, Wait, apps_lack, configuration_lacks, processes_lack

Json = dict[str, Any]
Event = Callable[[Json], None]
COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
FAULT_KIND = "Fault"
INBOUND_LISTENER = 15006
PROTOCOL_TEXT = {"http": "http", "http2": "tcp (h2)", "tcp": "tcp", "auto": "auto"}  # HTTP/2 is carried as bytes for now


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` or `delete` led to. `sidecars` are those that the change affects."""

    generation: str
    seconds: float
    sidecars: list[Json]
    diagnostics: list[Json]

    def of(self, state: str) -> list[Json]:
        return [one for one in self.sidecars if one["state"] == state]


@dataclass(frozen=True, slots=True)
class FaultRequest:
    target: str
    abort: int | None = None
    delay: float | None = None  # seconds
    percent: float = 100.0
    caller: str | None = None
    path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    lifetime: float | None = None  # seconds


def seen_h2(proxies: Mapping[str, Json]) -> dict[tuple[str, str], set[int]]:
    """(service, namespace) -> its ports where a sidecar of its workloads has seen HTTP/2."""
    out: dict[tuple[str, str], set[int]] = {}
    for one in proxies.values():
        out.setdefault((one["service"], one["namespace"]), set()).update(one.get("h2_ports") or ())
    return out


def find_compose_file(given: Path | None, directory: Path) -> Path:
    if given is not None:
        if not given.is_file():
            raise DevmeshError(f"{given} does not exist", "devmesh up -f path/to/compose.yaml")
        return given.resolve()
    for name in COMPOSE_NAMES:
        if (directory / name).is_file():
            return (directory / name).resolve()
    raise DevmeshError(f"no compose file in {directory}", "cd to where compose.yaml is, or -f path/to/compose.yaml")


class Mesh:
    """The mesh of one compose file."""

    def __init__(self, compose_file: Path) -> None:
        self.compose_file = compose_file
        self.files = MeshFiles.of(compose_file)

    @staticmethod
    def of(given: Path | None = None, directory: Path | None = None) -> Mesh:
        return Mesh(find_compose_file(given, directory or Path.cwd()))

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The runtime of the mesh that is up, else of the one that was asked for last."""
        name = (self.files.read_state() or {}).get("runtime", "local")
        return runtime_of(name, self.compose_file, self.files)

    def is_up(self) -> bool:
        return self.runtime.is_up()

    def up(self, settings: Json, tell: Event) -> None:
        """Bring it up and return when it is ready. Raises DevmeshError with what went wrong."""
        if self.is_up():
            raise DevmeshError(f"the mesh in {self.compose_file.parent} is already up", "devmesh status, or devmesh down first")
        runtime_of(settings.get("runtime", "local"), self.compose_file, self.files).up(settings, tell)

    async def down(self, *, volumes: bool = False) -> bool:
        """Stop everything, with `volumes` forget what the mesh kept; False when nothing ran."""
        stopped = await self.runtime.down(volumes=volumes)
        if volumes:
            await asyncio.to_thread(shutil.rmtree, self.files.root, ignore_errors=True)
        return stopped

    def manifest(self, profiles: Sequence[str]) -> str:
        """The project that the Docker runtime makes of the compose file. Raises DevmeshError."""
        from devmesh.runtimes.docker.manifest import generate  # noqa: PLC0415 - the SDK is slow to import and one command needs it

        return generate(self.compose_file, self.files.root / "docker", profiles)

    async def act(self, action: str, target: str) -> list[str]:
        """restart, stop or start the apps of a service or workload; the workloads it did it to."""
        return await self.runtime.act(action, target)

    def state(self) -> Json:
        """What the runtime last wrote. Raises DevmeshError when nothing is up."""
        return self.files.running_state()

    # -- looking ---------------------------------------------------------------------------------------------------

    async def control(self, path: str, wait: float = 5) -> Json:
        url = f"http://127.0.0.1:{self.state()['ports']['control']}{path}"
        return await self.ask(url, wait)

    async def ask(self, url: str, wait: float) -> Json:
        """GET from one of the mesh's own servers. Raises DevmeshError."""
        status, text = await fetch(url, self.files.mesh_token(), wait)
        try:
            answer: Json = json.loads(text)
        except ValueError as error:
            raise no_answer(url, error) from error
        if status >= 400:
            raise DevmeshError(str(answer.get("error", answer)), "devmesh status")
        return answer

    async def status(self) -> Json:
        """The shape of `status -o json` (docs: command line)."""
        proxies = await self._proxies()
        state = await self.runtime.state()
        workloads = self._workloads(state, proxies)
        ports, problem = await self._registered(proxies)
        expiries = await asyncio.gather(*(self._certificate(name) for name in state["workloads"]))
        for workload, expires in zip(workloads, expiries, strict=True):
            workload["certificate"]["expires"] = expires
            workload["ports"] = [] if workload["gateway"] else ports.get((workload["service"], workload["namespace"]), [])
        return {
            "workloads": workloads,
            "urls": await self.urls(state),
            "runtime": self.runtime.name,
            "supervised": self.is_up(),
            "problem": problem,
        }

    async def wait(self, limit: float, tell: Event) -> None:
        """Return when every process is ready, every sidecar runs the newest configuration and every app takes connections; told as `up` is.

        Raises DevmeshError with what is missing after `limit` seconds and the last lines of its log.
        """
        wait = Wait(tell, limit, self._last_lines)
        await wait.phase("processes", self._processes_lack)
        await wait.phase("configuration", self._configuration_lacks)
        await wait.phase("apps", self._apps_lack)

    def _last_lines(self, name: str) -> list[str]:
        try:
            found = list(self.runtime.logs(LogQuery(name, tail=LAST_LINES)))
        except DevmeshError:
            return []
        return [line for who, line in found if who == name] or [line for _, line in found]

    async def _processes_lack(self) -> list[Lack]:
        return processes_lack((await self.runtime.state())["processes"])

    async def _configuration_lacks(self) -> list[Lack]:
        try:
            async with self.registry() as registry:
                _, pair = await registry.kv_get(GENERATION)
        except DevmeshError as error:
            return [Lack("registry", error.message, "registry")]
        try:
            return configuration_lacks(await self.control(f"/v1/generations/{pair.value.decode() if pair else '-'}"))
        except DevmeshError as error:
            return [Lack("control plane", error.message, "control")]

    async def _apps_lack(self) -> list[Lack]:
        state = await self.runtime.state()
        done = {one["name"] for one in state["processes"] if one.get("state") == "exited"}
        return apps_lack(one for one in self._workloads(state, await self._proxies()) if one["name"] not in done)

    def _workloads(self, state: Json, proxies: Mapping[str, Json]) -> list[Json]:
        processes = {one["name"]: one for one in state["processes"]}
        return [self._workload(name, one, processes, proxies.get(name, {})) for name, one in state["workloads"].items()]

    async def _proxies(self) -> dict[str, Json]:
        """The control plane's view of each sidecar; none while it is away."""
        try:
            return {one["workload"]: one for one in (await self.control("/v1/proxies"))["proxies"]}
        except DevmeshError:
            return {}

    async def _registered(self, proxies: Mapping[str, Json]) -> tuple[dict[tuple[str, str], list[Json]], str | None]:
        """What each service's ports speak and how that is known, by (service, namespace); what keeps new configuration from the sidecars."""
        try:
            topology = (await self.topology()).with_h2(seen_h2(proxies))
        except DevmeshError as error:
            return {}, f"{error.message}; hint: {error.hint}"
        ports = {
            (service.name, service.namespace): [
                {"port": port.port, "protocol": PROTOCOL_TEXT[port.protocol], "source": port.protocol_source} for port in service.ports
            ]
            for service in topology.services
        }
        return ports, None

    def _workload(self, name: str, one: Json, processes: dict[str, Json], proxy: Json) -> Json:
        sidecar = processes.get(one.get("sidecar", f"{name}-sidecar"), {})
        app = None if one["gateway"] else processes.get(name)
        return {
            "name": name,
            "service": one["service"],
            "version": one["version"],
            "namespace": one["namespace"],
            "ready": bool(sidecar.get("ready")) and (app is None or bool(app["ready"])),
            "healthy": bool(proxy.get("healthy")),
            "synced": bool(proxy.get("synced") and proxy.get("connected")),
            "sidecar_version": proxy.get("sidecar_version"),
            "gateway": one["gateway"],
            "interception": one.get("interception", "proxy"),
            "certificate": {"spiffe_id": one["spiffe_id"], "expires": None},
            "restarts": (app["restarts"] if app else 0) + sidecar.get("restarts", 0),
            "detail": proxy.get("detail") or "",
            "calls_out": proxy.get("calls_out"),
        }

    async def certificates(self, workload: str) -> Json:
        """What a sidecar says of its certificates. Raises DevmeshError."""
        answer: Json = json.loads(await self.runtime.ask_sidecar(workload, "admin", "/certs"))
        return answer

    async def _certificate(self, workload: str) -> str | None:
        try:
            answer = await self.certificates(workload)
        except (DevmeshError, ValueError):
            return None
        for certificate in answer.get("certificates", ()):
            for chain in certificate.get("cert_chain", ()):
                return str(chain.get("expiration_time"))
        return None

    async def urls(self, state: Json) -> Json:
        """Services at the gateway where one binds them, else at their own inbound port."""
        services: Json = {}
        bound = await self._bound_services()
        strict = await self._strict_workloads()
        for name, one in state["workloads"].items():
            if one["gateway"] or one["service"] in services:
                continue
            if one["service"] in bound:
                services[one["service"]] = state["gateway_url"] + bound[one["service"]]
            elif name in strict:
                services[one["service"]] = "mtls only"
            elif one["url"]:
                services[one["service"]] = one["url"]
        return {"services": services, "mesh": self.mesh_urls()}

    def mesh_urls(self) -> dict[str, str]:
        """Where the mesh's own servers are, for people."""
        ports = self.state()["ports"]
        names = {"consul": "registry", "jaeger": "query", "control": "control"}
        return {name: f"http://127.0.0.1:{ports[key]}" for name, key in names.items()}

    async def _bound_services(self) -> dict[str, str]:
        """Service -> path below the gateway's URL, from the gateway's own compiled routes."""
        try:
            config = await self.control("/v1/proxies/istio-ingressgateway/config")
        except DevmeshError:
            return {}
        out: dict[str, str] = {}
        for table in config["routes"]:
            for host in table["virtual_hosts"]:
                for route in host.get("routes", ()):
                    cluster = route.get("route", {}).get("cluster", "")
                    service = cluster.rpartition("|")[2].partition(".")[0]
                    match = route.get("match", {})
                    out.setdefault(service, match.get("path") or match.get("prefix") or "/")
        out.pop("", None)
        return out

    async def _strict_workloads(self) -> set[str]:
        strict = set()
        for name, one in self.state()["workloads"].items():
            if one["gateway"]:
                continue
            try:
                config = await self.control(f"/v1/proxies/{name}/config")
            except DevmeshError:
                continue
            inbound: Json = next((item for item in config["listeners"] if item["name"] == "virtualInbound"), {"filter_chains": []})
            matches = [chain["filter_chain_match"] for chain in inbound["filter_chains"]]
            # A workload without ports has only the chain that refuses connections to the listener itself.
            ports = [match for match in matches if match.get("destination_port", INBOUND_LISTENER) != INBOUND_LISTENER]
            if ports and not any(match.get("transport_protocol") == "raw_buffer" for match in ports):
                strict.add(name)
        return strict

    # -- resources -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        url = f"http://127.0.0.1:{self.state()['ports']['registry']}"
        async with Registry(url, self.files.mesh_token()) as registry:
            if (await registry.kv_get(MESH_ID))[1] is None:
                raise DevmeshError(
                    "the registry came back empty: what was applied is lost there, the sidecars keep running what they had",
                    "devmesh down, then devmesh up",
                )
            yield registry

    async def topology(self) -> Topology:
        async with self.registry() as registry:
            return Topology.from_json(await read_json(registry, "devmesh/topology"))

    async def check(self, resources: Sequence[Resource]) -> list[Diagnostic]:
        """Judge new resources together with those in force."""
        from devmesh.config.loader import load_value  # noqa: PLC0415 - one use

        async with self.registry() as registry:
            present = await list_resources(registry)
        new = {resource.key for resource in resources}
        in_force = [
            found
            for one in present
            if one.owner != "fault" and one.key not in new
            for found in load_value(
                one.document, one.file, one.key.namespace, owner=one.owner, lines=one.lines, columns=one.columns
            ).resources
        ]
        mine = {resource.file for resource in resources}
        topology = (await self.topology()).with_h2(seen_h2(await self._proxies()))
        return [d for d in analyze([*in_force, *resources], topology) if d.where is None or d.where.file in mine]

    async def apply(self, resources: Sequence[Resource], timeout: float) -> Applied:  # noqa: ASYNC109 - the user's --timeout
        started = time.monotonic()
        async with self.registry() as registry:
            written = await apply_resources(registry, [StoredResource.of(resource, "apply") for resource in resources])
        return await self._acknowledged(written.generation, started, timeout)

    async def delete(self, keys: Sequence[tuple[str, ResourceKey]], timeout: float = 10) -> Applied:  # noqa: ASYNC109 - as above
        started = time.monotonic()
        async with self.registry() as registry:
            generation = await delete_resources(registry, keys)
        return await self._acknowledged(generation, started, timeout)

    async def _acknowledged(self, generation: str, started: float, timeout: float) -> Applied:  # noqa: ASYNC109 - as above
        answer = await self.control(f"/v1/generations/{generation}?wait={int(timeout * 1000)}ms", timeout + 2)
        if not answer["compiled"]:
            raise DevmeshError(
                f"the control plane has not compiled this within {timeout:g} s; it is written and will be", "devmesh proxy-status"
            )
        affected = [one for one in answer["sidecars"] if one.get("changed") or one["state"] in ("nacked", "pending", "disconnected")]
        return Applied(generation, time.monotonic() - started, affected, answer["diagnostics"])

    async def resources(self) -> list[StoredResource]:
        async with self.registry() as registry:
            return await list_resources(registry)

    # -- faults ----------------------------------------------------------------------------------------------------

    async def inject(self, request: FaultRequest) -> tuple[str, Applied]:
        """Write a Fault; unknown targets and callers are errors."""
        topology = await self.topology()
        services = sorted({workload.service for workload in topology.workloads if not workload.gateway})
        known = {*services, *(workload.name for workload in topology.workloads), *(workload.service for workload in topology.workloads)}
        for what, name in (("target", request.target), ("caller", request.caller)):
            if name is not None and name not in (services if what == "target" else known):
                close = difflib.get_close_matches(name, services, 1)
                hint = f"did you mean {close[0]}?" if close else "devmesh status lists what there is"
                raise DevmeshError(f"unknown {what} {name!r}; services are {', '.join(services)}", hint)
        if request.abort is None and request.delay is None:
            raise DevmeshError("a fault needs --abort STATUS or --delay DURATION", f"devmesh fault inject {request.target} --abort 503")
        if request.abort is not None and not 200 <= request.abort <= 599:
            raise DevmeshError(
                f"--abort {request.abort} is no HTTP status from 200 to 599", f"devmesh fault inject {request.target} --abort 503"
            )
        if not 0 < request.percent <= 100:
            raise DevmeshError(
                f"--percent {request.percent:g} is not between 0 and 100", f"devmesh fault inject {request.target} --abort 503 --percent 50"
            )
        identity = f"{request.target}-{secrets.token_hex(3)}"
        started = time.monotonic()
        stored = StoredResource(ResourceKey(DEVMESH, FAULT_KIND, "default", identity), "fault", _fault_document(identity, request), "-")
        async with self.registry() as registry:
            generation = await write_resources(registry, [stored])
        return identity, await self._acknowledged(generation, started, 10)

    async def faults(self) -> list[Json]:
        """Each injected fault with how often it fired, as the callees' sidecars count."""
        stored = [one for one in await self.resources() if one.owner == "fault"]
        hits = await self._fault_hits() if stored else {}
        return [{"id": one.key.name, **one.document["spec"], "hits": hits.get(one.key.name, 0)} for one in stored]

    async def _fault_hits(self) -> dict[str, int]:
        runtime = self.runtime
        texts = await asyncio.gather(
            *(runtime.ask_sidecar(name, "prometheus", "/stats/prometheus") for name in self.state()["workloads"]), return_exceptions=True
        )
        out: dict[str, int] = {}
        for line in (line for text in texts if isinstance(text, str) for line in text.splitlines()):
            if line.startswith("devmesh_fault_hits_total{"):
                name = line.partition('fault="')[2].partition('"')[0]
                out[name] = out.get(name, 0) + int(float(line.rpartition(" ")[2]))
        return out

    async def clear_faults(self, identities: Sequence[str]) -> tuple[list[Json], Applied | None]:
        faults = await self.faults()
        gone = [one for one in faults if not identities or one["id"] in identities or one["target"] in identities]
        unknown = [name for name in identities if not any(name in (one["id"], one["target"]) for one in faults)]
        if unknown:
            raise DevmeshError(f"no fault {', '.join(unknown)}", "devmesh fault list")
        if not gone:
            return [], None
        keys = [("fault", ResourceKey(DEVMESH, FAULT_KIND, "default", one["id"])) for one in gone]
        return gone, await self.delete(keys)


def _fault_document(identity: str, request: FaultRequest) -> Json:
    spec: Json = {"id": identity, "target": request.target}
    if request.abort is not None:
        spec["abort"] = {"httpStatus": request.abort, "percentage": request.percent}
    if request.delay is not None:
        spec["delay"] = {"fixedDelay": request.delay, "percentage": request.percent}
    if request.caller:
        spec["from"] = request.caller
    if request.path:
        spec["path"] = request.path
    if request.headers:
        spec["headers"] = dict(request.headers)
    if request.lifetime is not None:
        spec["until"] = time.time_ns() / 1e9 + request.lifetime
    return {"apiVersion": f"{DEVMESH}/v1", "kind": FAULT_KIND, "metadata": {"name": identity, "namespace": "default"}, "spec": spec}
