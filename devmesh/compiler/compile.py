"""`compile_proxy(world, name)`: everything one proxy gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from devmesh.compiler import clusters
from devmesh.compiler.access_log import with_access_logs
from devmesh.compiler.faults import cut_off
from devmesh.compiler.gateways import merge_servers
from devmesh.compiler.listeners import Listeners
from devmesh.compiler.outbound import neighbour, outbound, upstream
from devmesh.compiler.secrets import gateway_secrets
from devmesh.compiler.shared import Json
from devmesh.compiler.tables import Tables
from devmesh.compiler.world import World, per_world
from devmesh.config.model import Diagnostic
from devmesh.config.topology_types import Workload
from devmesh.errors import DevmeshError
from devmesh.xds.snapshot import Encoded, Snapshot


@dataclass(frozen=True, slots=True)
class Compiled:
    snapshot: Snapshot
    diagnostics: tuple[Diagnostic, ...] = ()


def compile_proxy(world: World, workload: str) -> Compiled:
    """Raises DevmeshError for a workload that the topology does not have."""
    proxy = world.topology.workload(workload)
    if proxy is None:
        known = ", ".join(one.name for one in world.topology.workloads)
        raise DevmeshError(f"no workload {workload!r}", f"one of: {known}")
    tables = Tables(world, proxy)
    listeners = Listeners(world, proxy, tables)
    return _gateway(world, proxy, tables, listeners) if proxy.gateway else _sidecar(world, proxy, listeners)


def _sidecar(world: World, proxy: Workload, listeners: Listeners) -> Compiled:
    shared = outbound(world, neighbour(world, proxy))
    found = [*shared.clusters, clusters.black_hole(world.settings, cut_off(world, proxy)), clusters.passthrough(world.settings)]
    found += [*_inbound_clusters(world, proxy), clusters.passthrough(world.settings, inbound=True)]
    everything = [*shared.listeners, *with_access_logs([listeners.inbound()], world.settings)]
    snapshot = Snapshot.of(everything, shared.routes, found, shared.assignments, shared.names, encode=partial(encoded, world))
    return Compiled(snapshot)


def _inbound_clusters(world: World, proxy: Workload) -> list[Json]:
    """One for each port of the workload; services that come to it by the same port of theirs are named together."""
    found: dict[int, tuple[int, Json]] = {}
    for service, port in world.ports_of(proxy):
        number, first = found.setdefault(port.target_port, (port.port, clusters.inbound(world, service, port)))
        named = first.get("metadata", {}).get("filter_metadata", {}).get("istio", {}).get("services", [])
        own = clusters.service_metadata(service)
        if number == port.port and named and own not in named:
            named.append(own)
    return [cluster for _, cluster in found.values()]


def _gateway(world: World, proxy: Workload, tables: Tables, listeners: Listeners) -> Compiled:
    shared = upstream(world, neighbour(world, proxy))
    merged = merge_servers(world, proxy)
    built = with_access_logs(listeners.gateway(merged), world.settings, gateway=True)
    routes = [tables.gateway(servers) for servers in merged.tables.values()]
    found = [*shared.clusters, clusters.black_hole(world.settings, cut_off(world, proxy))]
    secrets = gateway_secrets(world, proxy, built, found)
    snapshot = Snapshot.of(built, routes, found, shared.assignments, shared.names, secrets, encode=partial(encoded, world))
    return Compiled(snapshot)


@per_world
def encoded(world: World, resource: Json) -> Encoded:  # noqa: ARG001 - in whose life a resource is encoded once
    return Encoded.of(resource)
