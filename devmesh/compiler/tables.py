"""Route tables: a sidecar's one per port, a gateway's one per server port, and the inbound ones inside their listeners."""

from __future__ import annotations

from devmesh.compiler.clusters import cluster_name
from devmesh.compiler.faults import fault_routes
from devmesh.compiler.routes import RouteBuilder, default_route, gateway_name, hash_policy
from devmesh.compiler.shared import Json
from devmesh.compiler.world import World, matches
from devmesh.config.istio_networking import Gateway, Server, VirtualService
from devmesh.config.model import Resource
from devmesh.config.names import expand_host, host_matches, service_fqdn
from devmesh.config.topology_types import Service, ServicePort, Workload

HTTP_PROTOCOLS = frozenset({"http", "http2", "auto"})


def domains(service: Service, proxy: Workload) -> list[str]:
    """The names under which a proxy knows a service, in istiod's order."""
    names = [service.name, *service.aliases_for(proxy)]
    found = [domain for name in names for domain in _domains_of(name, service.namespace, proxy.namespace)]
    return list(dict.fromkeys([*found, service.cluster_ip]))


def _domains_of(name: str, namespace: str, own: str) -> list[str]:
    if "." in name:  # full already
        return [name]
    fqdn = service_fqdn(name, namespace)
    longer = [f"{name}.{namespace}.svc", f"{name}.{namespace}"]
    return [fqdn, f"{fqdn}.", *([name, *longer] if namespace == own else reversed(longer))]


def http_ports(world: World) -> list[int]:
    """Ports that get an outbound HTTP table, in the order in which services bring them."""
    found = {port.port: None for service in world.services() for port in service.ports if port.protocol in ("http", "http2")}
    return list(found)


class Tables:
    """Builds tables for one proxy; collects the origin of every rule."""

    def __init__(self, world: World, proxy: Workload) -> None:
        self.world, self.proxy = world, proxy
        self.origins: dict[str, str] = {}

    def outbound(self, port: int) -> Json:
        hosts = [host for service in self.world.services() if (host := self._service_host(service, port)) is not None]
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
            hashing = hash_policy(self.world, service, port, "", self.proxy.namespace)
            if hashing is not None:
                route["route"]["hash_policy"] = [hashing]
            routes = [route]
        return _host(f"{service.hostname}:{port}", domains(service, self.proxy), routes)

    def _mesh_routes(self, hostname: str, port: int) -> list[Json]:
        """Routes of the VirtualService for the mesh that names this host most specifically; the oldest of equals."""
        naming = [one for one in self._mesh_services() if _specificity(one[0], one[1], hostname)]
        if not naming:
            return []
        resource, spec = max(naming, key=lambda one: _specificity(one[0], one[1], hostname))
        return self._build(resource, spec, port, frozenset({"mesh"}))

    def _mesh_services(self) -> list[tuple[Resource, VirtualService]]:
        services = self.world.virtual_services()
        return [(resource, spec) for resource, spec in services if "mesh" in _gateways(resource, spec) and self._visible(resource, spec)]

    def _foreign_hosts(self, port: int, known: set[str]) -> list[Json]:
        """VirtualServices for hosts that no service has at this port."""
        out = []
        services = {service.hostname for service in self.world.topology.services if any(one.port == port for one in service.ports)}
        for resource, spec in self._mesh_services():
            for host in spec.hosts:
                name = expand_host(host, resource.key.namespace)
                if any(host_matches(name, service) for service in services) or f"{name}:{port}" in known:
                    continue
                known.add(f"{name}:{port}")
                routes = self._build(resource, spec, port, frozenset({"mesh"}))
                if routes:
                    out.append(_host(f"{name}:{port}", [name], routes))
        return out

    def _visible(self, resource: Resource, spec: VirtualService) -> bool:
        return (
            not spec.export_to
            or "*" in spec.export_to
            or self.proxy.namespace in spec.export_to
            or resource.key.namespace == self.proxy.namespace
        )

    def _build(self, resource: Resource, spec: VirtualService, port: int, gateways: frozenset[str]) -> list[Json]:
        builder = RouteBuilder(self.world, self.proxy, resource, spec, port, gateways)
        routes = builder.build()
        self.origins.update(builder.origins)
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

    def gateway(self, port: int) -> Json | None:
        """`http.<port>`: the virtual hosts of every Gateway server that binds this target port."""
        hosts: dict[str, Json] = {}
        numbers: list[int] = []
        for resource, _, server in gateway_servers(self.world, self.proxy):
            if target_port(self.world, self.proxy, server) != port:
                continue
            numbers.append(server.port.number if server.port is not None else port)
            for name, host in self._gateway_hosts(resource, server).items():
                known = hosts.get(name)
                if known is None:
                    hosts[name] = host
                else:
                    known["routes"] += host["routes"]
        if not numbers:
            return None
        listed = sorted(hosts.values(), key=lambda host: host["name"])
        if not listed:
            listed = [{"name": f"blackhole:{numbers[0]}", "domains": ["*"]}]
        return _table(f"http.{port}", listed)

    def _gateway_hosts(self, gateway: Resource, server: Server) -> dict[str, Json]:
        out: dict[str, Json] = {}
        own = f"{gateway.key.namespace}/{gateway.key.name}"
        number = server.port.number if server.port is not None else 0
        for resource, spec in self.world.virtual_services():
            if own not in _gateways(resource, spec):
                continue
            for host in spec.hosts:
                name = _intersection(expand_host(host, resource.key.namespace), server, resource.key.namespace)
                if name is None:
                    continue
                routes = self._build(resource, spec, number, frozenset({own}))
                if f"{name}:{number}" in out:
                    out[f"{name}:{number}"]["routes"] += routes
                else:
                    out[f"{name}:{number}"] = _host(f"{name}:{number}", [name], routes)
                if server.tls is not None and server.tls.https_redirect:
                    out[f"{name}:{number}"]["require_tls"] = "ALL"
        return out


def gateway_servers(world: World, proxy: Workload) -> list[tuple[Resource, Gateway, Server]]:
    """HTTP servers of the Gateways that select this workload."""
    out = []
    for resource, spec in world.gateways():
        if spec.selector and not matches(spec.selector, proxy.labels):
            continue
        out += [
            (resource, spec, s)
            for s in spec.servers
            if s.port is not None and s.port.protocol.upper() in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
        ]
    return out


def target_port(world: World, proxy: Workload, server: Server) -> int:
    """A server's port as the gateway's service maps it (80 -> 8080)."""
    number = server.port.number if server.port is not None else 0
    for service in world.services_of(proxy):
        for port in service.ports:
            if port.port == number:
                return port.target_port
    return number


def _gateways(resource: Resource, spec: VirtualService) -> frozenset[str]:
    return frozenset(gateway_name(name, resource.key.namespace) for name in spec.gateways) or frozenset({"mesh"})


def _specificity(resource: Resource, spec: VirtualService, hostname: str) -> int:
    """How closely a VirtualService names a host: the length of its longest pattern that covers it, 0 for none."""
    patterns = [expand_host(host, resource.key.namespace) for host in spec.hosts]
    return max((len(pattern) for pattern in patterns if host_matches(pattern, hostname)), default=0)


def _intersection(host: str, server: Server, namespace: str) -> str | None:
    """The more specific of a VirtualService's host and one that the server allows; None without overlap."""
    for allowed in server.hosts:
        scope, slash, pattern = allowed.rpartition("/")
        if slash and scope not in ("*", namespace, "."):
            continue
        if host_matches(pattern, host):
            return host
        if host_matches(host, pattern):
            return pattern
    return None


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
