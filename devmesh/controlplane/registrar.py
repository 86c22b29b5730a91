"""Registers workloads as Istio auto-registers WorkloadEntries: when the sidecar connects, kept alive by what it says of its app."""

import asyncio
import logging

from devmesh.config.topology import Topology, Workload
from devmesh.controlplane.push import Pushes
from devmesh.controlplane.state import State
from devmesh.controlplane.watch import Link, RegistryWatch
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registration, Registry, RegistryUnavailableError

log = logging.getLogger(__name__)
RETRY_SECONDS = 0.5


def registration(topology: Topology, workload: Workload, *, healthy: bool, ttl: float) -> Registration:
    service = topology.service(workload.service, workload.namespace)
    ports = service.ports if service else ()
    return Registration(
        workload=workload.name,
        service=workload.service,
        address=workload.ip,
        addresses=workload.addresses,
        port=ports[0].port if ports else next(iter(workload.ports), 0),
        namespace=workload.namespace,
        version=workload.version,
        service_account=workload.service_account,
        vip=service.cluster_ip if service else "",
        labels=workload.labels,
        ports=[{"name": p.name, "port": p.port, "targetPort": p.target_port, "appProtocol": p.app_protocol} for p in ports],
        ttl=ttl,
        healthy=healthy,
    )


class Registrar:
    """Callers only say what is so; one loop tells the registry, so that a slow registry delays no poll and no health report."""

    def __init__(self, registry: Registry, watch: RegistryWatch, state: State, pushes: Pushes) -> None:
        self._registry = registry
        self._watch = watch
        self._state = state
        self._pushes = pushes
        self._registered: set[str] = set()
        self._details: dict[str, str] = {}
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()

    def connected(self, name: str) -> None:
        if name not in self._registered:
            self._enqueue(name)

    def report(self, name: str, *, healthy: bool, detail: str) -> None:
        """Take what a sidecar says of its app; only its last word is passed on."""
        self._state.trust.reported[name] = healthy
        self._details[name] = detail
        self._enqueue(name)

    def _enqueue(self, name: str) -> None:
        self._waiting[name] = None
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._telling(), name="tell the registry")
            tasks.create_task(self._returning(), name="register again")

    async def _returning(self) -> None:
        """Tell of everybody connected again when the registry is back, whose checks may have run out; register them when it has lost us."""
        while True:
            if self._watch.link is Link.LOST:
                self._registered.clear()
            if self._watch.link in (Link.LOST, Link.SYNCED):
                for proxy in self._pushes.connected():
                    self._enqueue(proxy.workload)
            await self._watch.link_changed.wait()

    async def _telling(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                name = next(iter(self._waiting))
                del self._waiting[name]
                await self._tell_patiently(name)

    async def _tell_patiently(self, name: str) -> None:
        try:
            await self._tell(name)
        except RegistryUnavailableError as error:
            log.warning("telling the registry of %s: %s", name, error.message)
            self._waiting.setdefault(name)
            await asyncio.sleep(RETRY_SECONDS)
        except DevmeshError as error:
            # Refused, not unreachable: the same words would be refused again; the next report is the next try.
            log.error("the registry does not take %s: %s", name, error.message)  # noqa: TRY400  a traceback says nothing more

    async def _tell(self, name: str) -> None:
        if name not in self._registered and not await self._register(name):
            return
        if name in self._details:
            tell = self._registry.ttl_pass if self._state.trust.reported[name] else self._registry.ttl_fail
            if not await tell(f"service:{name}", self._details[name]):
                await self._register(name)
                await tell(f"service:{name}", self._details[name])

    async def _register(self, name: str) -> bool:
        topology, workload = self._state.topology, self._state.workload(name)
        if topology is None or workload is None:
            return False
        healthy = self._state.trust.reported.get(name, name in self._state.healthy())
        entry = registration(topology, workload, healthy=healthy, ttl=self._state.ttl)
        await self._registry.register(entry)
        self._watch.refetch(entry.service)
        self._registered.add(name)
        log.info("registered %s as %s at %s", name, entry.service, entry.address)
        return True
