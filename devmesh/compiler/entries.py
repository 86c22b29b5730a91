"""ServiceEntries as services: a host of the outside world that clients find by name, address or SNI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from devmesh.compiler.shared import Json
from devmesh.config.istio_service_entry import EntryPort, ServiceEntry
from devmesh.config.model import Resource
from devmesh.config.topology_types import Protocol, Service, ServicePort

PROTOCOLS: Mapping[str, Protocol] = {"HTTP": "http", "HTTP_PROXY": "http", "GRPC-WEB": "http2", "HTTP2": "http2", "GRPC": "http2"}
RESOLVED = {"DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryService(Service):
    """One host of a ServiceEntry at one of its addresses or ranges of addresses; `cluster_ip` is empty where it has none."""

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
    """In the order in which they were applied; a host has one at each of its addresses, and of each entry that names it."""
    for resource in resources:
        spec = resource.spec
        if not isinstance(spec, ServiceEntry) or spec.resolution == "DYNAMIC_DNS":
            continue
        ports = tuple(_port(port) for port in spec.ports)
        addresses = [_address(one) for one in spec.addresses] or [""]
        selector = _selector(spec)
        for host in spec.hosts:
            for address in dict.fromkeys(addresses):
                yield EntryService(host, resource.key.namespace, address, selector, ports, resource=resource, entry=spec)


def _address(address: str) -> str:
    """A range of one address is that address."""
    host, _, bits = address.partition("/")
    return host if bits and int(bits) == ip_address(host).max_prefixlen else address


def _selector(spec: ServiceEntry) -> Mapping[str, str]:
    """Where NONE goes, the client says."""
    return spec.workload_selector.labels if spec.workload_selector is not None and spec.resolution != "NONE" else {}


def in_one_namespace(services: Iterable[Service], own: str) -> list[Service]:
    """Of a host that several namespaces have, those of the proxy's own namespace, else of the first (istiod's selectServices)."""
    known = list(services)
    chosen: dict[str, Service] = {}
    for one in known:
        first = chosen.setdefault(one.hostname, one)
        if one.namespace == own and first.namespace != own and isinstance(first, EntryService):
            chosen[one.hostname] = one
    return [one for one in known if one.namespace == chosen[one.hostname].namespace]


def merged(services: Iterable[Service]) -> list[Service]:
    """One for each host, the first, with the ports of the others that are like it (istiod's appendSidecarServices)."""
    found: dict[str, Service] = {}
    for one in services:
        first = found.setdefault(one.hostname, one)
        if isinstance(first, EntryService) and isinstance(one, EntryService) and first.ports != one.ports and _alike(first, one):
            numbers = {port.port for port in first.ports}
            more = tuple(port for port in one.ports if port.port not in numbers)
            found[one.hostname] = replace(first, ports=(*first.ports, *more))
    return list(found.values())


def _alike(one: EntryService, other: EntryService) -> bool:
    """istiod's canMergeServices."""
    return (
        one.namespace == other.namespace
        and one.entry.resolution == other.entry.resolution
        and one.resource.meta.labels == other.resource.meta.labels
        and one.selector == other.selector
        and set(one.entry.export_to) == set(other.entry.export_to)
    )


def _port(port: EntryPort) -> ServicePort:
    protocol = PROTOCOLS.get(port.protocol.upper(), "tcp")
    return ServicePort(port.name, port.number, port.target_port or port.number, port.protocol.lower(), protocol, "app_protocol")


def as_addressed(cluster: Json) -> None:
    """Its endpoints are what clients addressed."""
    cluster["type"], cluster["lb_policy"] = "ORIGINAL_DST", "CLUSTER_PROVIDED"
    for discovery in ("eds_cluster_config", "load_assignment"):
        cluster.pop(discovery, None)


def entry_names(entries: Iterable[EntryService], taken: Iterable[str]) -> Json:
    """What a resolver in the pod answers for their hosts: their addresses, else one that is made up, as istiod allocates them.

    No route or listener knows a made-up address: such hosts are told by Host or SNI, or by their port.
    """
    busy = set(taken)
    prefix = next(iter(sorted(busy)), "240.240.0.1").rpartition(".")[0]
    free = (address for number in range(254, 0, -1) if (address := f"{prefix}.{number}") not in busy)
    out: Json = {}
    for one in entries:
        if one.name.startswith("*") or "/" in one.cluster_ip or (not one.cluster_ip and one.entry.resolution == "NONE"):
            continue
        found = out.setdefault(one.name, {"ips": [], "registry": "External"})
        address = one.cluster_ip or next(free, "")
        found["ips"] += [address] if address else []
    return out
