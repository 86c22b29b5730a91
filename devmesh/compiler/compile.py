"""`compile_proxy(world, name)`: everything one proxy gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from devmesh.compiler import clusters, endpoints, entries
from devmesh.compiler.access_log import with_access_logs
from devmesh.compiler.destination_rules import client_of, rule_for, subset_labels
from devmesh.compiler.entries import EntryService, entry_names
from devmesh.compiler.faults import cut_off
from devmesh.compiler.gateways import merge_servers
from devmesh.compiler.listeners import Listeners
from devmesh.compiler.policies import tls_mode
from devmesh.compiler.secrets import gateway_secrets
from devmesh.compiler.shared import Json
from devmesh.compiler.tables import Tables, http_ports
from devmesh.compiler.world import World
from devmesh.config.model import Diagnostic
from devmesh.config.names import service_fqdn
from devmesh.config.topology_types import Service, ServicePort, Workload
from devmesh.errors import DevmeshError
from devmesh.xds.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Compiled:
    """`origins` maps a rule (`<istio config path>#<http index>`) to file:line."""

    snapshot: Snapshot
    diagnostics: tuple[Diagnostic, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)


def compile_proxy(world: World, workload: str) -> Compiled:
    """Raises DevmeshError for a workload that the topology does not have."""
    proxy = world.topology.workload(workload)
    if proxy is None:
        known = ", ".join(one.name for one in world.topology.workloads)
        raise DevmeshError(f"no workload {workload!r}", f"one of: {known}")
    tables = Tables(world, proxy)
    listeners = Listeners(world, proxy, tables)
    return _gateway(world, proxy, tables, listeners) if proxy.gateway else _sidecar(world, proxy, tables, listeners)


def _sidecar(world: World, proxy: Workload, tables: Tables, listeners: Listeners) -> Compiled:
    found, assignments = _outbound(world, proxy)
    found += [clusters.black_hole(world.settings, cut_off(world, proxy)), clusters.passthrough(world.settings)]
    seen: dict[str, Json] = {}
    for service in world.services_of(proxy):
        for port in service.ports:
            cluster = clusters.inbound(world, service, port)
            known = seen.setdefault(cluster["name"], cluster)
            if known is not cluster:
                known["metadata"]["filter_metadata"]["istio"]["services"] += cluster["metadata"]["filter_metadata"]["istio"]["services"]
    found += [*seen.values(), clusters.passthrough(world.settings, inbound=True)]
    routes = [tables.outbound(port) for port in http_ports(world, proxy.namespace)]
    routes += [tables.auto(s, p) for s in world.topology.services for p in s.ports if p.protocol == "auto"]
    everything = with_access_logs([*listeners.outbound(), listeners.inbound()], world.settings)
    return Compiled(Snapshot.of(everything, routes, found, assignments, [names(world, proxy)]), (), tables.origins)


def _gateway(world: World, proxy: Workload, tables: Tables, listeners: Listeners) -> Compiled:
    found, assignments = _outbound(world, proxy)
    merged = merge_servers(world, proxy)
    built = with_access_logs(listeners.gateway(merged), world.settings, gateway=True)
    routes = [tables.gateway(servers) for servers in merged.tables.values()]
    found.append(clusters.black_hole(world.settings, cut_off(world, proxy)))
    secrets = gateway_secrets(world, proxy, built, found)
    return Compiled(Snapshot.of(built, routes, found, assignments, [names(world, proxy)], secrets), (), tables.origins)


def _outbound(world: World, proxy: Workload) -> tuple[list[Json], list[Json]]:
    found: list[Json] = []
    assignments: list[Json] = []
    seen: set[str] = set()
    for service in world.services(proxy.namespace):
        if service.hostname in seen:  # at another of its addresses
            continue
        seen.add(service.hostname)
        for port in service.ports:
            built = clusters.service_clusters(world, service, port, client_of(world, proxy), at_gateway=proxy.gateway)
            found += built
            assignments += [_assignment(world, service, port, cluster, proxy) for cluster in built if cluster["type"] == "EDS"]
    return found, assignments


def _assignment(world: World, service: Service, port: ServicePort, cluster: Json, proxy: Workload) -> Json:
    subset = cluster["name"].split("|")[2]
    rule = rule_for(world, service, client_of(world, proxy))
    labels = subset_labels(rule.spec if rule is not None else None, subset)
    if isinstance(service, EntryService):
        return entries.assignment(cluster["name"], service, port, labels)
    mode = tls_mode(rule.spec, subset, port.port) if rule is not None else None
    return endpoints.assignment(world, cluster["name"], service, port, labels, proxy, mode)


def names(world: World, proxy: Workload) -> Json:
    """Istio's NameTable (NDS): what a resolver in the pod answers."""
    table: Json = {}
    for service in world.topology.services:
        entry = {"ips": [service.cluster_ip], "registry": "Kubernetes"}
        for name in (service.name, *service.aliases_for(proxy)):
            if "." in name:  # full already
                table[name] = entry
            else:
                table[service_fqdn(name, service.namespace)] = entry | {"shortname": name, "namespace": service.namespace}
    return {"table": table | entry_names(world.entries, [service.cluster_ip for service in world.topology.services])}
