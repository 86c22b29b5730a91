"""A running mesh as one object: what the CLI and tests do with it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from devmesh.config.analysis import analyze
from devmesh.config.injection import FAULT_KIND, FaultRequest, called, check_names, check_usage, fault_document, fault_state
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
    in_force,
    list_resources,
    read_topology,
    write_resources,
)
from devmesh.running import Event, RunningMesh
from devmesh.runtimes.runtime import LogQuery
from devmesh.runtimes.waiting import LAST_LINES, Lack, Wait, apps_lack, configuration_lacks, processes_lack, traffic_lacks

Json = dict[str, Any]
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


def seen_h2(proxies: Mapping[str, Json]) -> dict[tuple[str, str], set[int]]:
    """(service, namespace) -> its ports where a sidecar of its workloads has seen HTTP/2."""
    out: dict[tuple[str, str], set[int]] = {}
    for one in proxies.values():
        out.setdefault((one["service"], one["namespace"]), set()).update(one.get("h2_ports") or ())
    return out


def fault_hits(text: str) -> dict[str, int]:
    """How often each fault has fired, as a sidecar's metrics tell (Prometheus' text format)."""
    out: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("devmesh_fault_hits_total{"):
            name = line.partition('fault="')[2].partition('"')[0]
            out[name] = out.get(name, 0) + int(float(line.rpartition(" ")[2]))
    return out


class Mesh(RunningMesh):
    """The mesh of one compose file: its resources and faults, too."""

    async def status(self) -> Json:
        """The shape of `status -o json` (docs: command line)."""
        proxies = await self._proxies()
        state = await self.runtime.state()
        workloads = self._workloads(state, proxies)
        ports, problem = await self._registered(proxies)
        now = datetime.now(UTC)
        certificates = await asyncio.gather(*(self.certificate(name, now) for name in state["workloads"]))
        for workload, (expires, why) in zip(workloads, certificates, strict=True):
            workload["certificate"] |= {"expires": expires, "problem": why}
            workload["ports"] = [] if workload["gateway"] else ports.get((workload["service"], workload["namespace"]), [])
        return {
            "workloads": workloads,
            "urls": await self.urls(state),
            "faults": await self._faults_in_force(),
            "runtime": self.runtime.name,
            "settings": state.get("settings", {}),
            "supervised": self.is_up(),
            "problem": problem,
        }

    async def _faults_in_force(self) -> list[Json]:
        try:
            return await self.faults()
        except DevmeshError:  # of the registry, which `problem` tells of
            return []

    async def wait(self, limit: float, tell: Event) -> None:
        """Return when every process is ready, every sidecar runs the newest configuration and every app gets traffic; told as `up` is.

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
        endpoints = await self._endpoints()
        workloads = [one for one in self._workloads(state, await self._proxies()) if one["name"] not in done]
        return apps_lack(workloads) or traffic_lacks(workloads, endpoints)

    def _workloads(self, state: Json, proxies: Mapping[str, Json]) -> list[Json]:
        processes = {one["name"]: one for one in state["processes"]}
        return [self._workload(name, one, processes, proxies.get(name, {})) for name, one in state["workloads"].items()]

    async def _proxies(self) -> dict[str, Json]:
        """The control plane's view of each sidecar; none while it is away."""
        try:
            return {one["workload"]: one for one in (await self.control("/v1/proxies"))["proxies"]}
        except DevmeshError:
            return {}

    async def _endpoints(self) -> frozenset[str]:
        """Who the control plane has given out to callers; nobody while it is away."""
        try:
            return frozenset((await self.control("/v1/status"))["endpoints"])
        except DevmeshError:
            return frozenset()

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
        # a server that was stopped is not: its sidecar finds nobody at its ports
        done = app is not None and app.get("state") == "exited" and app["status"] == 0 and bool(proxy.get("healthy"))
        return {
            "name": name,
            "service": one["service"],
            "version": one["version"],
            "namespace": one["namespace"],
            "ready": bool(sidecar.get("ready")) and (app is None or done or bool(app["ready"] and not app.get("held"))),
            "done": done,
            "held": bool((app or {}).get("held")),
            "exit_status": (app or {}).get("status"),
            "stopped": (app or {}).get("state") == "stopped",
            "healthcheck": (app or {}).get("health"),
            "waits": (app or {}).get("waits", ""),
            "healthy": bool(proxy.get("healthy")),
            "synced": bool(proxy.get("synced") and proxy.get("connected")),
            "sidecar_version": proxy.get("sidecar_version"),
            "gateway": one["gateway"],
            "interception": one.get("interception", "proxy"),
            "certificate": {"spiffe_id": one["spiffe_id"], "expires": None, "problem": ""},
            "restarts": (app["restarts"] if app else 0) + sidecar.get("restarts", 0),
            "detail": proxy.get("detail") or "",
            "calls_out": proxy.get("calls_out"),
        }

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
            return await read_topology(registry)

    async def check(self, resources: Sequence[Resource]) -> list[Diagnostic]:
        """Judge new resources together with those in force."""
        from devmesh.config.loader import load_value  # noqa: PLC0415 - one use

        async with self.registry() as registry:
            present, topology, proxies = await asyncio.gather(list_resources(registry), read_topology(registry), self._proxies())
        new = {resource.key for resource in resources}
        others = [
            resource
            for one in in_force(present)
            if one.owner != "fault" and one.key not in new
            for resource in load_value(
                one.document, one.file, one.key.namespace, owner=one.owner, lines=one.lines, columns=one.columns
            ).resources
        ]
        mine = {resource.file for resource in resources}
        found = analyze([*others, *resources], topology.with_h2(seen_h2(proxies)))
        return [d for d in found if d.where is None or d.where.file in mine]

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
        """Write a Fault, and have it done where it is done to apps. Raises DevmeshError for names that nobody has, and when no app runs."""
        check_usage(request)
        targets = [one.name for one in check_names(request, await self.topology())]
        if (request.kill or request.pause) and not self.state()["workloads"].keys() & set(targets):
            raise DevmeshError(f"{request.target} runs in another project of this mesh", "cd to its folder, then the same command")
        killed = len(await self.runtime.kill(request.target)) if request.kill else 0
        identity = "-".join(filter(None, (request.target, request.partition, secrets.token_hex(3))))
        document = fault_document(identity, request, time.time_ns() / 1e9, killed)
        stored = StoredResource(ResourceKey(DEVMESH, FAULT_KIND, "default", identity), "fault", document, "-")
        started = time.monotonic()
        async with self.registry() as registry:
            generation = await write_resources(registry, [stored])
        applied = await self._acknowledged(generation, started, 10)
        if request.pause:
            await self._pause(stored, targets)
        return identity, applied

    async def _pause(self, fault: StoredResource, workloads: Sequence[str]) -> None:
        """A service's app that does not run now is held when it does; where none runs the fault is taken back."""
        try:
            await self._hold(workloads)
        except DevmeshError:
            await self.delete([("fault", fault.key)])
            raise

    async def _hold(self, workloads: Sequence[str]) -> None:
        if not self.is_up():
            raise DevmeshError("nobody keeps the mesh any more who could hold an app", "devmesh down, then devmesh up")
        if not set(workloads) & set(await self.runtime.hold()):
            raise DevmeshError(f"{', '.join(workloads)} does not run yet, or no more", f"devmesh start {workloads[0]}")

    async def faults(self) -> list[Json]:
        """Each injected fault with its state and how often it fired: a pause and a kill count apps, the others what sidecars met."""
        stored = [one for one in await self.resources() if one.owner == "fault"]
        if not stored:
            return []
        counted, state = await self._fault_hits(), await self.runtime.state()
        return [self._fault(one.key.name, one.document["spec"], counted, state) for one in stored]

    def _fault(self, identity: str, spec: Json, counted: Mapping[str, Mapping[str, int] | None], state: Json) -> Json:
        held = {one["name"] for one in state["processes"] if one.get("held")}
        workloads: Mapping[str, Json] = state["workloads"]
        apps = {name: name in held for name, one in workloads.items() if spec["target"] in (name, one["service"]) and not one["gateway"]}
        sides = (spec["target"], spec.get("partition"))
        silent = [name for name, one in workloads.items() if counted[name] is None and (name in sides or one["service"] in sides)]
        hits: int | None = None if silent else sum(one.get(identity, 0) for one in counted.values() if one is not None)
        if spec.get("pause") or spec.get("kill"):
            hits, silent = sum(apps.values()), []
        return {"id": identity, "hits": hits, "silent": silent, **spec, "state": fault_state(spec, apps)}

    async def _fault_hits(self) -> dict[str, dict[str, int] | None]:
        """What each workload's sidecar has counted, by fault; None of one that does not answer."""
        names = list(self.state()["workloads"])
        asked = (self.runtime.ask_sidecar(name, "prometheus", "/stats/prometheus") for name in names)
        texts = await asyncio.gather(*asked, return_exceptions=True)
        return {name: fault_hits(text) if isinstance(text, str) else None for name, text in zip(names, texts, strict=True)}

    async def clear_faults(self, identities: Sequence[str]) -> tuple[list[Json], Applied | None]:
        """Remove these, by id or by a side, or all; each as it was. Raises DevmeshError for one that is not there."""
        faults = await self.faults()
        gone = [one for one in faults if not identities or called(one) & set(identities)]
        unknown = [name for name in identities if not any(name in called(one) for one in faults)]
        if unknown:
            raise DevmeshError(f"no fault {', '.join(unknown)}", "devmesh fault list")
        if not gone:
            return [], None
        applied = await self.delete([("fault", ResourceKey(DEVMESH, FAULT_KIND, "default", one["id"])) for one in gone])
        if any(one.get("pause") for one in gone):
            await self.runtime.hold()
        return gone, applied
