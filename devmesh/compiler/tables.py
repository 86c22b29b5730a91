"""Route tables: a sidecar's one per port, a gateway's one per server port, and the inbound ones inside their listeners."""

from __future__ import annotations

from devmesh.compiler.clusters import cluster_name
from devmesh.compiler.destination_rules import client_of
from devmesh.compiler.entries import EntryService
from devmesh.compiler.faults import fault_routes
from devmesh.compiler.gateways import GatewayServer, by_specificity, intersection
from devmesh.compiler.routes import MESH, default_route, gateways_of, hash_policy, mesh_services, routes_of
from devmesh.compiler.shared import Json
from devmesh.compiler.world import World, per_world
from devmesh.config.istio_networking import VirtualService
from devmesh.config.model import Resource, ResourceKey
from devmesh.config.names import expand_host, host_matches, service_fqdn
from devmesh.config.topology_types import Service, ServicePort, Workload

HTTP_PROTOCOLS = frozenset({"http", "http2", "auto"})


def domains(service: Service, proxy: Workload) -> list[str]:
    """The names under which a proxy knows a service, in istiod's order."""
    if isinstance(service, EntryService):
        return [service.name, f"{service.name}.", *([service.cluster_ip] if service.cluster_ip else [])]
    names = [service.name, *service.aliases_for(proxy)]
    found = [domain for name in names for domain in _domains_of(name, service.namespace, proxy.namespace)]
    return list(dict.fromkeys([*found, service.cluster_ip]))


def _domains_of(name: str, namespace: str, own: str) -> list[str]:
    if "." in name:  # full already
        return [name]
    fqdn = service_fqdn(name, namespace)
    longer = [f"{name}.{namespace}.svc", f"{name}.{namespace}"]
    return [fqdn, f"{fqdn}.", *([name, *longer] if namespace == own else reversed(longer))]


def http_ports(world: World, namespace: str) -> list[int]:
    """Ports that get an outbound HTTP table, in the order in which services bring them."""
    found = {port.port: None for service in world.services(namespace) for port in service.ports if port.protocol in ("http", "http2")}
    return list(found)


class Tables:
    """Builds tables for one proxy; collects the origin of every rule."""

    def __init__(self, world: World, proxy: Workload) -> None:
        self.world, self.proxy = world, proxy
        self.origins: dict[str, str] = {}

    def outbound(self, port: int) -> Json:
        services = self.world.services(self.proxy.namespace)
        hosts = _distinct([host for service in services if (host := self._service_host(service, port)) is not None])
        if port == 80:  # where istiod puts hosts that no registry knows
            hosts += self._foreign_hosts(port, {host["name"] for host in hosts})
        hosts.sort(key=lambda host: host["name"])
        return _table(str(port), [*hosts, self._catch_all()])

    def auto(self, service: Service, port: ServicePort) -> Json:
        """The table of a port whose protocol is sniffed: named `<host>:<port>`."""
        host = self._service_host(service, port.port)
        found = [] if host is None else [{**host, "domains": ["*"]}]
        return _table(f"{service.hostname}:{port.port}", found)

    def _service_host(self, service: Service, port: int) -> Json | None:
        service_port = next((p for p in service.ports if p.port == port and p.protocol in HTTP_PROTOCOLS), None)
        if service_port is None:
            return None
        routes = self._mesh_routes(service.hostname, port)
        if not routes:
            name = cluster_name(service.hostname, port, "")
            route = default_route(name, f"{service.hostname}:{port}/*", self.world.settings.default_http_retry_policy)
            hashing = hash_policy(self.world, service, port, "", client_of(self.world, self.proxy))
            if hashing is not None:
                route["route"]["hash_policy"] = [hashing]
            routes = [route]
        return _host(f"{service.hostname}:{port}", domains(service, self.proxy), routes)

    def _mesh_routes(self, hostname: str, port: int) -> list[Json]:
        """Routes of the VirtualService for the mesh that names this host most specifically; the oldest of equals."""
        found = _closest(self.world, hostname, self.proxy.namespace)
        return self._build(*found, port, MESH) if found is not None else []

    def _foreign_hosts(self, port: int, known: set[str]) -> list[Json]:
        """VirtualServices for hosts that no service has at this port."""
        out = []
        services = {
            service.hostname for service in self.world.services(self.proxy.namespace) if any(one.port == port for one in service.ports)
        }
        for resource, spec in mesh_services(self.world, self.proxy.namespace):
            for host in spec.hosts:
                name = expand_host(host, resource.key.namespace)
                if any(host_matches(name, service) for service in services) or f"{name}:{port}" in known:
                    continue
                known.add(f"{name}:{port}")
                routes = self._build(resource, spec, port, MESH)
                if routes:
                    out.append(_host(f"{name}:{port}", [name], routes))
        return out

    def _build(self, resource: Resource, spec: VirtualService, port: int, gateways: frozenset[str]) -> list[Json]:
        routes, origins = routes_of(self.world, self.proxy, resource, spec, port, gateways)
        self.origins.update(origins)
        return routes

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
            "retry_policy": {"retry_on": "reset-before-request", "num_retries": 2},
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
            for resource, spec in self.world.virtual_services():
                if one.gateway not in gateways_of(resource, spec):
                    continue
                names = [expand_host(host, resource.key.namespace) for host in spec.hosts]
                for name in intersection(names, one.hosts_for(resource.key.namespace)):
                    key = (one.gateway, resource.key)
                    if key not in built:
                        built[key] = self._build(resource, spec, one.number, frozenset({one.gateway}))
                    if built[key]:  # a VirtualService without an HTTP route for this server binds no host of it
                        _add_routes(hosts, name.lower(), one, built[key])
            if _redirects(one):
                for name in one.hosts:
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
    """Hosts with the very same routes become one with several domains (istiod's collapseDuplicateRoutes); routes for all paths come last."""
    kept: dict[tuple[object, ...], Json] = {}
    for name in sorted(hosts, key=by_specificity):
        host = hosts[name]
        key = (host.get("require_tls"), *(id(route) for route in host["routes"]))
        if key in kept:
            kept[key]["domains"] += host["domains"]
        else:
            kept[key] = host
    for host in kept.values():
        host["routes"].sort(key=_is_catch_all)
        if not host["routes"]:
            del host["routes"]
    return list(kept.values())


def _is_catch_all(route: Json) -> bool:
    match = route["match"]
    everything = match.get("prefix") == "/" or match.get("safe_regex", {}).get("regex") == ".*"
    return everything and not match.get("headers") and not match.get("query_parameters")


@per_world
def _closest(world: World, hostname: str, namespace: str) -> tuple[Resource, VirtualService] | None:
    """Whose pattern covers the host most specifically; the oldest of equals."""
    naming = [(size, one) for one in mesh_services(world, namespace) if (size := _specificity(*one, hostname))]
    return max(naming, key=lambda found: found[0])[1] if naming else None


def _specificity(resource: Resource, spec: VirtualService, hostname: str) -> int:
    """How closely a VirtualService names a host: the length of its longest pattern that covers it, 0 for none."""
    patterns = [expand_host(host, resource.key.namespace) for host in spec.hosts]
    return max((len(pattern) for pattern in patterns if host_matches(pattern, hostname)), default=0)


def _distinct(hosts: list[Json]) -> list[Json]:
    """A host with several addresses is known by the last one, unless another host has it: Envoy takes a name and a domain once (istiod's dedupe)."""
    kept = {host["name"]: host for host in hosts}
    seen: set[str] = set()
    for host in kept.values():
        host["domains"] = [domain for domain in host["domains"] if domain not in seen]
        seen |= set(host["domains"])
    return list(kept.values())


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
