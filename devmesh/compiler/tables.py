"""Route tables: a sidecar's one per port, a gateway's one per server port, and the inbound ones inside their listeners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from devmesh.compiler.clusters import cluster_name
from devmesh.compiler.destination_rules import client_of
from devmesh.compiler.entries import EntryService
from devmesh.compiler.faults import fault_routes
from devmesh.compiler.gateways import GatewayServer, by_specificity, intersection
from devmesh.compiler.routes import default_route, routes_of, service_hash_policy
from devmesh.compiler.scope import MESH, gateways_of, mesh_services, seen_services
from devmesh.compiler.shared import Json
from devmesh.compiler.world import World, per_world
from devmesh.config.istio_networking import VirtualService
from devmesh.config.model import Resource, ResourceKey
from devmesh.config.names import DOMAIN, expand_host, host_matches, service_fqdn
from devmesh.config.topology_types import Service, ServicePort, Workload

IN_MESH = f".svc.{DOMAIN}"
HTTP_PROTOCOLS = frozenset({"http", "http2", "auto"})


def domains(service: Service, proxy: Workload) -> list[str]:
    """The names under which a proxy knows a service, in istiod's order."""
    if isinstance(service, EntryService):
        return [*_names_of(service.name, proxy.namespace), *([service.cluster_ip] if service.cluster_ip else [])]
    names = [service.name, *service.aliases_for(proxy)]
    found = [domain for name in names for domain in _domains_of(name, service.namespace, proxy.namespace)]
    return list(dict.fromkeys([*found, service.cluster_ip]))


def _domains_of(name: str, namespace: str, own: str) -> list[str]:
    if "." in name:  # full already
        return [name]
    return _names_of(service_fqdn(name, namespace), own)


def _names_of(hostname: str, own: str) -> list[str]:
    """A host's name, and the shorter ones by which the mesh's own domain is searched (istiod's GenerateAltVirtualHosts)."""
    before, in_mesh, _ = hostname.partition(IN_MESH)
    short, dot, namespace = before.partition(".")
    longer = [f"{before}.svc", before] if in_mesh and dot else []
    return [hostname, f"{hostname}.", *([short, *longer] if namespace == own else reversed(longer))]


class Tables:
    """Builds tables for one proxy."""

    def __init__(self, world: World, proxy: Workload) -> None:
        self.world, self.proxy = world, proxy
        self._built_hosts: dict[int, list[Json]] = {}

    def outbound(self, port: int) -> Json:
        hosts = sorted(self._hosts(port), key=lambda host: str(host["name"]))
        return _table(str(port), [*hosts, self._catch_all()])

    def auto(self, service: Service, port: ServicePort) -> Json:
        """The table of a port whose protocol is sniffed: named `<host>:<port>`."""
        found = [host for host in self._hosts(port.port) if service.hostname in host["domains"]]
        return _table(f"{service.hostname}:{port.port}", [{**found[0], "domains": ["*"]}] if len(found) == 1 else found)

    def _hosts(self, port: int) -> list[Json]:
        """Virtual hosts of VirtualServices and, of services that none has routes for, the default ones; a name or domain is the first one's."""
        if port not in self._built_hosts:
            seen: set[str] = set()
            self._built_hosts[port] = [host for host in self._all_hosts(port) if _takes(host, seen)]
        return self._built_hosts[port]

    def _all_hosts(self, port: int) -> Iterator[Json]:
        bound, registry = bound_at(self.world, self.proxy.namespace, port)
        rest = dict(registry)
        for one in bound:
            routes = self._build(one.resource, one.spec, port, MESH)
            if not routes:
                continue
            for name in one.foreign:
                yield _host(f"{name}:{port}", [name], routes)
            for service in one.services:
                rest.pop(service.hostname, None)
                yield _host(f"{service.hostname}:{port}", domains(service, self.proxy), routes)
        for service in rest.values():
            if _http_at(service, port):
                yield _host(f"{service.hostname}:{port}", domains(service, self.proxy), [self._default_route(service, port)])

    def _default_route(self, service: Service, port: int) -> Json:
        name = cluster_name(service.hostname, port, "")
        route = default_route(name, f"{service.hostname}:{port}/*", self.world.settings.default_http_retry_policy)
        hashing = service_hash_policy(self.world, service, port, client_of(self.world, self.proxy))
        if hashing is not None:
            route["route"]["hash_policy"] = [hashing]
        return route

    def _build(self, resource: Resource, spec: VirtualService, port: int, gateways: frozenset[str], *, tls: bool = False) -> list[Json]:
        return routes_of(self.world, self.proxy, resource, spec, port, gateways, tls=tls)

    def _catch_all(self) -> Json:
        if self.world.settings.outbound_traffic_policy == "REGISTRY_ONLY":
            route: Json = {"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}
            return _host("block_all", ["*"], [route])
        action = {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}
        return _host("allow_any", ["*"], [{"name": "allow_any", "match": {"prefix": "/"}, "route": action}])

    def inbound(self, service: Service | None, port: ServicePort | None) -> Json:
        """The route_config inside an inbound chain; None is the passthrough of ports that no service has."""
        if service is None or port is None:
            cluster, name, host, operation = "InboundPassthroughCluster", "InboundPassthroughCluster", "inbound|http|0", ":0/*"
        else:
            target = port.target_port
            cluster = name = f"inbound|{target}||"
            host, operation = f"inbound|http|{port.port}", f"{service.hostname}:{port.port}/*"
        action = {
            "cluster": cluster,
            "timeout": "0s",
            # Streams of gRPC are not begun anew.
            **({} if port is not None and port.is_grpc else {"retry_policy": {"retry_on": "reset-before-request", "num_retries": 2}}),
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        }
        default = {"name": "default", "match": {"prefix": "/"}, "route": action, "decorator": {"operation": operation}}
        faults = fault_routes(self.world, service, default) if service is not None else []
        return {
            "name": name,
            "virtual_hosts": [{"name": host, "domains": ["*"], "routes": [*faults, default]}],
            "validate_clusters": False,
        }

    def gateway(self, servers: list[GatewayServer]) -> Json:
        """The table that these servers share: a virtual host for every name that a server and a VirtualService of its Gateway have both."""
        hosts: dict[str, Json] = {}
        built: dict[tuple[str, ResourceKey], list[Json]] = {}
        for one in servers:
            for resource, spec in seen_services(self.world, self.proxy.namespace):
                if one.gateway not in gateways_of(resource, spec):
                    continue
                names = [expand_host(host, resource.key.namespace) for host in spec.hosts]
                for name in intersection(names, one.hosts_for(resource.key.namespace)):
                    key = (one.gateway, resource.key)
                    if key not in built:
                        built[key] = self._build(resource, spec, one.number, frozenset({one.gateway}), tls=one.server.tls is not None)
                    if built[key]:  # a VirtualService without an HTTP route for this server binds no host of it
                        _add_routes(hosts, name.lower(), one, built[key])
            if _redirects(one):
                for name in one.bound_hosts:
                    hosts.setdefault(name, _host(f"{name}:{one.number}", [name], []))["require_tls"] = "ALL"
        listed = sorted(_collapsed(hosts), key=lambda host: host["name"])
        if not listed:
            listed = [{"name": f"blackhole:{servers[0].number}", "domains": ["*"]}]
        return _table(servers[0].table, listed)


def _redirects(one: GatewayServer) -> bool:
    return one.server.tls is not None and one.server.tls.https_redirect


def _add_routes(hosts: dict[str, Json], name: str, one: GatewayServer, routes: list[Json]) -> None:
    if name in hosts:
        hosts[name]["routes"] = [*hosts[name].get("routes", ()), *routes]
    else:
        hosts[name] = _host(f"{name}:{one.number}", [name], list(routes))
    if _redirects(one):
        hosts[name]["require_tls"] = "ALL"


def _collapsed(hosts: dict[str, Json]) -> list[Json]:
    """Hosts with the very same routes become one with several domains; routes for all paths come last.

    Each is held against the last one with these routes alone, which has to redirect like it (istiod's collapseDuplicateRoutes).
    """
    last: dict[tuple[int, ...], Json] = {}
    kept: list[Json] = []
    for name in sorted(hosts, key=by_specificity):
        host = hosts[name]
        key = tuple(id(route) for route in host["routes"])
        if key in last and last[key].get("require_tls") == host.get("require_tls"):
            last[key]["domains"] += host["domains"]
        else:
            last[key] = host
            kept.append(host)
    for host in kept:
        host["routes"].sort(key=_is_catch_all)
        if not host["routes"]:
            del host["routes"]
    return kept


def _is_catch_all(route: Json) -> bool:
    match = route["match"]
    everything = match.get("prefix") == "/" or match.get("safe_regex", {}).get("regex") == ".*"
    return everything and not match.get("headers") and not match.get("query_parameters")


class Bound(NamedTuple):
    """A VirtualService at a port: its hosts that no service there has, and the services that its routes are for."""

    resource: Resource
    spec: VirtualService
    foreign: list[str]
    services: list[Service]


@per_world
def bound_at(world: World, namespace: str, port: int) -> tuple[list[Bound], dict[str, Service]]:
    """What a sidecar of a namespace sees at a port, and all services there by host (istiod's buildSidecarVirtualHostsForVirtualService).

    Hosts that no service has matter at port 80 only, or beside a service of the same VirtualService.
    """
    registry = {service.hostname: service for service in world.services(namespace) if any(one.port == port for one in service.ports)}
    bound = []
    for resource, spec in mesh_services(world, namespace):
        foreign, found = _split(world, resource, spec, registry, namespace)
        services = [service for service in found if _http_at(service, port)]
        if services or port == 80:
            bound.append(Bound(resource, spec, foreign, services))
    return bound, registry


def _split(
    world: World, resource: Resource, spec: VirtualService, registry: Mapping[str, Service], namespace: str
) -> tuple[list[str], list[Service]]:
    """Exact hosts first; a wildcard has the services for which no other VirtualService names the host more closely."""
    names = [expand_host(host, resource.key.namespace).lower() for host in spec.hosts]
    exact = [name for name in names if not name.startswith("*")]
    foreign = [name for name in exact if name not in registry]
    services = [registry[name] for name in exact if name in registry]
    for name in names:
        if not name.startswith("*"):
            continue
        covered = [service for host, service in registry.items() if host_matches(name, host)]
        services += [one for one in covered if closest(world, namespace, one.hostname) == resource.key]
        foreign += [] if covered else [name]
    return foreign, services


@per_world
def closest(world: World, namespace: str, hostname: str) -> ResourceKey | None:
    """The VirtualService that names a host most closely; the oldest of equals."""
    found: ResourceKey | None = None
    size = 0
    for resource, spec in mesh_services(world, namespace):
        for host in spec.hosts:
            pattern = expand_host(host, resource.key.namespace)
            if len(pattern) > size and host_matches(pattern, hostname):
                found, size = resource.key, len(pattern)
    return found


def _http_at(service: Service, port: int) -> bool:
    return any(one.port == port and one.protocol in HTTP_PROTOCOLS for one in service.ports)


def _takes(host: Json, seen: set[str]) -> bool:
    """Whether anything is left of a virtual host: Envoy takes a name and a domain once (istiod's dedupeDomains)."""
    name = f"name {host['name']}"
    if name in seen:
        return False
    host["domains"] = [domain for domain in host["domains"] if domain.lower() not in seen]
    seen |= {name, *(domain.lower() for domain in host["domains"])}
    return bool(host["domains"])


def _host(name: str, names: list[str], routes: list[Json]) -> Json:
    return {"name": name, "domains": names, "routes": routes, "include_request_attempt_count": True}


def _table(name: str, hosts: list[Json]) -> Json:
    return {
        "name": name,
        "virtual_hosts": hosts,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1048576,
        "ignore_port_in_host_matching": True,
    }
