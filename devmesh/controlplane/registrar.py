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
GATEWAY_SERVICE = "istio-ingressgateway"


def registration(topology: Topology, workload: Workload, *, healthy: bool, ttl: float) -> Registration:
    service = topology.service(workload.service, workload.namespace)
    ports = service.ports if service else ()
    return Registration(
        workload=workload.name,
        service=GATEWAY_SERVICE if workload.gateway else workload.service,
        address=workload.ip,
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
    """One lock a workload, so that a registration never overtakes a health report."""

    def __init__(self, registry: Registry, watch: RegistryWatch, state: State, pushes: Pushes) -> None:
        self._registry = registry
        self._watch = watch
        self._state = state
        self._pushes = pushes
        self._registered: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        """Register everybody connected again whenever the registry has lost us."""
        while True:
            if self._watch.link is Link.LOST:
                self._registered.clear()
                for proxy in self._pushes.connected():
                    await self.connected(proxy.workload)
            await self._watch.link_changed.wait()

    async def connected(self, name: str) -> None:
        """Register once in this life; an unreachable registry is tried again at the next word from the sidecar."""
        if name in self._registered:
            return
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                if name not in self._registered:
                    await self._register(name)
        except RegistryUnavailableError as error:
            log.warning("registering %s: %s", name, error.message)

    async def report(self, name: str, *, healthy: bool, detail: str) -> None:
        """Keep the TTL check alive with what the sidecar says; register again where the registry does not know it."""
        self._state.reported[name] = healthy
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                if name not in self._registered:
                    await self._register(name)
                tell = self._registry.ttl_pass if healthy else self._registry.ttl_fail
                if not await tell(f"service:{name}", detail):
                    await self._register(name)
                    await tell(f"service:{name}", detail)
        except RegistryUnavailableError as error:
            log.warning("health of %s: %s", name, error.message)
        except DevmeshError:
            self._registered.discard(name)
            raise

    async def _register(self, name: str) -> None:
        topology, workload = self._state.topology, self._state.workload(name)
        if topology is None or workload is None:
            return
        healthy = self._state.reported.get(name, name in self._state.healthy())
        entry = registration(topology, workload, healthy=healthy, ttl=self._state.ttl)
        await self._registry.register(entry)
        self._watch.refetch(entry.service)
        self._registered.add(name)
        log.info("registered %s as %s at %s", name, entry.service, entry.address)
