"""ServiceEntries as services: a host of the outside world that clients find by name, address or SNI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from devmesh.compiler.shared import Json, socket_address
from devmesh.config.istio_service_entry import EntryEndpoint, EntryPort, ServiceEntry
from devmesh.config.model import Resource
from devmesh.config.syntax import is_address
from devmesh.config.topology_types import Protocol, Service, ServicePort

PROTOCOLS: Mapping[str, Protocol] = {"HTTP": "http", "HTTP_PROXY": "http", "GRPC-WEB": "http2", "HTTP2": "http2", "GRPC": "http2"}
RESOLVED = {"DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS"}
DNS_SETTINGS: Json = {
    "dns_refresh_rate": "60s",
    "dns_jitter": "0.100s",
    "respect_dns_ttl": True,
    "dns_lookup_family": "V4_ONLY",
    "typed_dns_resolver_config": {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "udp_max_queries": 100,
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryService(Service):
    """One host of a ServiceEntry at one of its addresses; `cluster_ip` is empty where it has none."""

    resource: Resource
    entry: ServiceEntry

    @property
    def hostname(self) -> str:
        return self.name

    @property
    def is_external(self) -> bool:
        return self.entry.location == "MESH_EXTERNAL"

    def visible_in(self, namespace: str) -> bool:
        scopes = self.entry.export_to
        return not scopes or "*" in scopes or namespace in scopes or ("." in scopes and namespace == self.namespace)


def entry_services(resources: Iterable[Resource]) -> Iterator[EntryService]:
    """In the order in which they were applied; of a host that two entries have the first counts."""
    seen: set[tuple[str, str]] = set()
    for resource in resources:
        spec = resource.spec
        if not isinstance(spec, ServiceEntry) or spec.resolution == "DYNAMIC_DNS":
            continue
        ports = tuple(_port(port) for port in spec.ports)
        addresses = [one for one in spec.addresses if is_address(one)] or [""]
        for host in spec.hosts:
            for address in addresses:
                if (host, address) not in seen:
                    seen.add((host, address))
                    yield EntryService(host, resource.key.namespace, address, {}, ports, resource=resource, entry=spec)


def _port(port: EntryPort) -> ServicePort:
    protocol = PROTOCOLS.get(port.protocol.upper(), "tcp")
    return ServicePort(port.name, port.number, port.target_port or port.number, port.protocol.lower(), protocol, "app_protocol")


def resolve(cluster: Json, service: EntryService, port: ServicePort, labels: Mapping[str, str], *, at_gateway: bool) -> None:
    """How a cluster finds its endpoints: as they stand (EDS), by DNS, or as the client addressed them, which nobody does at a gateway."""
    kind = service.entry.resolution
    if kind == "NONE" and not at_gateway:
        as_addressed(cluster)
        if port.target_port != port.port:
            cluster["original_dst_lb_config"] = {"upstream_port_override": port.target_port}
    elif kind in RESOLVED:
        cluster["type"] = RESOLVED[kind]
        del cluster["eds_cluster_config"]
        cluster["load_assignment"] = assignment(cluster["name"], service, port, labels)
        cluster.update(DNS_SETTINGS)


def as_addressed(cluster: Json) -> None:
    """Its endpoints are what clients addressed."""
    cluster["type"], cluster["lb_policy"] = "ORIGINAL_DST", "CLUSTER_PROVIDED"
    for discovery in ("eds_cluster_config", "load_assignment"):
        cluster.pop(discovery, None)


def is_empty(service: Service, labels: Mapping[str, str]) -> bool:
    """A subset that no endpoint found by DNS belongs to has no cluster."""
    if not isinstance(service, EntryService) or service.entry.resolution not in RESOLVED:
        return False
    return not any(labels.items() <= one.labels.items() for one in _endpoints(service))


def assignment(name: str, service: EntryService, port: ServicePort, labels: Mapping[str, str]) -> Json:
    """`labels` are the subset's."""
    found = [
        _endpoint(service, port, endpoint, index)
        for index, endpoint in enumerate(_endpoints(service))
        if labels.items() <= endpoint.labels.items()
    ]
    if not found:
        return {"cluster_name": name}
    total = sum(one["load_balancing_weight"] for one in found)
    return {"cluster_name": name, "endpoints": [{"locality": {}, "lb_endpoints": found, "load_balancing_weight": total}]}


def _endpoints(service: EntryService) -> tuple[EntryEndpoint, ...]:
    """Without any, what DNS says of the host itself."""
    if service.entry.endpoints or service.entry.resolution not in RESOLVED:
        return service.entry.endpoints
    return (EntryEndpoint(address=service.name),)


def _endpoint(service: EntryService, port: ServicePort, endpoint: EntryEndpoint, index: int) -> Json:
    name = f"{service.resource.key.name}-{index}" if service.entry.endpoints else service.resource.key.name
    app, version = endpoint.labels.get("app", name), endpoint.labels.get("version", "")
    return {
        "endpoint": {"address": socket_address(endpoint.address, endpoint.ports.get(port.name) or port.target_port)},
        "metadata": {"filter_metadata": {"istio": {"workload": f"{name};{service.namespace};{app};{version};Kubernetes"}}},
        "load_balancing_weight": endpoint.weight or 1,
    }


def entry_names(entries: Iterable[EntryService], taken: Iterable[str]) -> Json:
    """What a resolver in the pod answers for their hosts: their addresses, else one that is made up, as istiod allocates them.

    No route or listener knows a made-up address: such hosts are told by Host or SNI, or by their port.
    """
    busy = set(taken)
    prefix = next(iter(sorted(busy)), "240.240.0.1").rpartition(".")[0]
    free = (address for number in range(254, 0, -1) if (address := f"{prefix}.{number}") not in busy)
    out: Json = {}
    for one in entries:
        if one.name.startswith("*") or (not one.cluster_ip and one.entry.resolution == "NONE"):
            continue
        found = out.setdefault(one.name, {"ips": [], "registry": "External"})
        address = one.cluster_ip or next(free, "")
        found["ips"] += [address] if address else []
    return out
