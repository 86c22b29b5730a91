"""What a proxy is told of everybody else: made once for all proxies that are told the same."""

from __future__ import annotations

from dataclasses import dataclass

from devmesh.compiler import clusters, endpoints, entry_endpoints
from devmesh.compiler.access_log import with_access_logs
from devmesh.compiler.destination_rules import client_of, rule_for, subset_labels
from devmesh.compiler.entries import EntryService, entry_names
from devmesh.compiler.listeners import Listeners
from devmesh.compiler.policies import tls_mode
from devmesh.compiler.scope import services_called
from devmesh.compiler.shared import Json
from devmesh.compiler.tables import Tables
from devmesh.compiler.world import World, per_world
from devmesh.config.names import service_fqdn
from devmesh.config.topology_types import Service, ServicePort, Workload


@dataclass(frozen=True, slots=True)
class Upstream:
    """Whom it can call, and under which names; of a gateway and of a sidecar."""

    clusters: list[Json]
    assignments: list[Json]
    names: list[Json]


@dataclass(frozen=True, slots=True)
class Outbound(Upstream):
    """With the way that a sidecar's calls go."""

    listeners: list[Json]
    routes: list[Json]


def neighbour(world: World, proxy: Workload) -> Workload:
    """The first workload that is told the same: `upstream` and `outbound` read nothing else of a proxy than what is compared here."""
    return _neighbours(world)[_view(world, proxy)]


@per_world
def _neighbours(world: World) -> dict[object, Workload]:
    return {_view(world, proxy): proxy for proxy in reversed(world.topology.workloads)}


def _view(world: World, proxy: Workload) -> object:
    aliases = tuple(tuple(service.aliases_for(proxy)) for service in world.topology.services if service.aliases)
    labels = tuple(proxy.labels.get(key) for key in _asked_labels(world))
    return client_of(world, proxy), proxy.gateway, frozenset(proxy.addresses), aliases, labels


@per_world
def _asked_labels(world: World) -> tuple[str, ...]:
    """Those that the `sourceLabels` of VirtualServices name."""
    specs = [spec for _, spec in world.virtual_services()]
    asked = {key for spec in specs for http in spec.http for match in http.match for key in match.source_labels}
    asked |= {key for spec in specs for tls in spec.tls for match in tls.match for key in match.source_labels}
    asked |= {key for spec in specs for tcp in spec.tcp for match in tcp.match for key in match.source_labels}
    return tuple(sorted(asked))


@per_world
def upstream(world: World, proxy: Workload) -> Upstream:
    found: list[Json] = []
    assignments: list[Json] = []
    for service in services_called(world, proxy.namespace, at_gateway=proxy.gateway):
        for port in service.ports:
            built = clusters.service_clusters(world, service, port, client_of(world, proxy), at_gateway=proxy.gateway)
            found += built
            assignments += [_assignment(world, service, port, cluster, proxy) for cluster in built if cluster["type"] == "EDS"]
    return Upstream(found, assignments, [names(world, proxy)])


@per_world
def outbound(world: World, proxy: Workload) -> Outbound:
    """Of a sidecar."""
    tables = Tables(world, proxy)
    listeners = with_access_logs(Listeners(world, proxy, tables).outbound(), world.settings)
    routes = [tables.outbound(port) for port in _http_ports(listeners)]
    routes += [tables.auto(s, p) for s in world.topology.services for p in s.ports if p.protocol == "auto"]
    called = upstream(world, proxy)
    return Outbound(called.clusters, called.assignments, called.names, listeners, routes)


def _http_ports(listeners: list[Json]) -> list[int]:
    """Those whose listeners read requests and tell services apart by their names."""
    tables = [one["filters"][-1]["typed_config"].get("rds") for listener in listeners for one in listener["filter_chains"]]
    names = [table["route_config_name"] for table in tables if table is not None]
    return [int(name) for name in names if name.isdecimal()]


def _assignment(world: World, service: Service, port: ServicePort, cluster: Json, proxy: Workload) -> Json:
    subset = cluster["name"].split("|")[2]
    rule = rule_for(world, service, client_of(world, proxy))
    labels = subset_labels(rule.spec if rule is not None else None, subset)
    mode = tls_mode(rule.spec, subset, port.port) if rule is not None else None
    if isinstance(service, EntryService):
        return entry_endpoints.assignment(world, cluster["name"], service, port, labels, proxy, mode)
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
