"""A gateway's servers, merged by port as istiod does it (MergeGateways): which listener, which filter chains, which route tables they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from devmesh.compiler.world import World, matches
from devmesh.config.istio_networking import Server
from devmesh.config.model import Resource, SourcePosition
from devmesh.config.names import host_matches
from devmesh.config.topology_types import Workload

PLAIN_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})
PASSTHROUGH = frozenset({"PASSTHROUGH", "AUTO_PASSTHROUGH"})


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """One server of a Gateway that selects the workload. `port` is where the proxy listens, `number` what the Gateway says."""

    resource: Resource
    server: Server
    port: int
    number: int
    protocol: str
    source: SourcePosition

    @property
    def gateway(self) -> str:
        """As VirtualServices name it, `<namespace>/<name>`."""
        return f"{self.resource.key.namespace}/{self.resource.key.name}"

    @property
    def is_passthrough(self) -> bool:
        return self.server.tls is not None and self.server.tls.mode in PASSTHROUGH

    @property
    def is_auto_passthrough(self) -> bool:
        return self.server.tls is not None and self.server.tls.mode == "AUTO_PASSTHROUGH"

    @property
    def is_http(self) -> bool:
        """Its bytes are read as HTTP here: plain, or after the TLS that it terminates."""
        return self.protocol in PLAIN_HTTP or (self.protocol == "HTTPS" and not self.is_passthrough)

    @property
    def is_tls(self) -> bool:
        return self.server.tls is not None and self.protocol not in PLAIN_HTTP

    @property
    def terminates_tls(self) -> bool:
        return self.server.tls is not None and self.protocol in ("HTTPS", "TLS") and not self.is_passthrough

    @property
    def table(self) -> str:
        """Its route table's name; empty where bytes are passed on as they are."""
        if self.protocol in PLAIN_HTTP:
            return f"http.{self.port}"
        if not self.is_http or self.server.port is None:
            return ""
        return f"https.{self.number}.{self.server.port.name}.{self.resource.key.name}.{self.resource.key.namespace}"

    @property
    def _said(self) -> Sequence[str]:
        """A host for all names in all namespaces leaves no other."""
        return ("*",) if "*/*" in self.server.hosts else self.server.hosts

    @property
    def hosts(self) -> list[str]:
        """The names that it serves, without the namespaces that may bind them."""
        return [host.rpartition("/")[2] for host in self._said]

    @property
    def bound_hosts(self) -> list[str]:
        """With their namespaces, as istiod has them: what servers of a port may not share, and the domains of a redirect to HTTPS."""
        own = self.resource.key.namespace
        return [(f"{own}{host[1:]}" if host.startswith("./") else host.removeprefix("*/")).lower() for host in self._said]

    def hosts_for(self, namespace: str) -> list[str]:
        """The hosts that VirtualServices of a namespace may bind; "." is the Gateway's own."""
        out = []
        for host in self._said:
            scope, slash, name = host.rpartition("/")
            if not slash or scope in ("*", namespace) or (scope == "." and namespace == self.resource.key.namespace):
                out.append(name)
        return out


@dataclass(slots=True)
class MergedServers:
    """`chains` are the servers of a port by protocol, in the order of their filter chains; `tables` those that share a route table."""

    chains: dict[int, dict[str, list[GatewayServer]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    tables: dict[str, list[GatewayServer]] = field(default_factory=lambda: defaultdict(list))

    def servers(self, port: int) -> Iterator[GatewayServer]:
        for of_protocol in self.chains[port].values():
            yield from of_protocol


def merge_servers(world: World, proxy: Workload) -> MergedServers:
    """Leave out what istiod leaves out: a host that a TLS server of the port has already, and what cannot share a port with the first."""
    merged = MergedServers()
    plain: dict[int, str] = {}
    tls_hosts: dict[int, set[str]] = defaultdict(set)
    for one in gateway_servers(world, proxy):
        if one.server.tls is not None and _taken(one, tls_hosts[one.port]):
            continue
        if one.port in plain:
            if one.protocol in PLAIN_HTTP and plain[one.port] in PLAIN_HTTP:
                merged.tables[one.table].append(one)
            continue
        if not one.is_tls:
            plain[one.port] = one.protocol
        elif one.is_http and one.table in merged.tables:
            continue
        if one.is_http:
            merged.tables[one.table].append(one)
        merged.chains[one.port][one.protocol].append(one)
    return merged


def _taken(one: GatewayServer, known: set[str]) -> bool:
    hosts = set(one.bound_hosts)
    if hosts & known:
        return True
    known |= hosts
    return False


def gateway_servers(world: World, proxy: Workload) -> list[GatewayServer]:
    """Servers of the Gateways that select this workload, oldest Gateway first."""
    return [
        GatewayServer(
            resource,
            server,
            target_port(world, proxy, server.port.number),
            server.port.number,
            server.port.protocol.upper(),
            resource.position(f"spec.servers[{index}]"),
        )
        for resource, spec in world.gateways()
        if not spec.selector or matches(spec.selector, proxy.labels)
        for index, server in enumerate(spec.servers)
        if server.port is not None
    ]


def target_port(world: World, proxy: Workload, number: int) -> int:
    """A server's port as the gateway's service maps it (80 -> 8080)."""
    mapped = (port.target_port for service in world.services_of(proxy) for port in service.ports if port.port == number)
    return next(mapped, number)


def intersection(hosts: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Of two sets of host names what both cover: of each overlapping pair the more specific one."""
    out: dict[str, None] = {}
    patterns = list(allowed)
    for pattern in patterns:
        for host in hosts:
            if host_matches(host, pattern):
                out[pattern] = None
            elif host_matches(pattern, host):
                out[host] = None
    return list(out)


def by_specificity(host: str) -> tuple[bool, int, str]:
    """The order of istiod's host names: whole names, then wildcards, longer ones first."""
    return host.startswith("*"), -len(host), host
