"""Where a ServiceEntry's host is: its endpoints, the workloads that it selects or what DNS says; of all entries of the host in a namespace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from devmesh.compiler.endpoints import of_hosts, workload_endpoint
from devmesh.compiler.entries import RESOLVED, EntryService, as_addressed
from devmesh.compiler.security import TLS_MODE_LABEL, has_sidecar, mode_at
from devmesh.compiler.shared import Json, socket_address
from devmesh.compiler.world import World, per_world
from devmesh.config.istio_service_entry import EntryEndpoint
from devmesh.config.syntax import is_address
from devmesh.config.topology_types import Service, ServicePort, Workload

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


def resolve(
    world: World, cluster: Json, service: EntryService, port: ServicePort, labels: Mapping[str, str], mode: str | None, *, at_gateway: bool
) -> None:
    """How a cluster finds its endpoints: as they stand (EDS), by DNS, or as the client addressed them, which nobody does at a gateway.

    `labels` are the subset's; `mode` is the DestinationRule's for TLS.
    """
    kind = service.entry.resolution
    if kind == "NONE" and not at_gateway:
        as_addressed(cluster)
        if port.target_port != port.port:
            cluster["original_dst_lb_config"] = {"upstream_port_override": port.target_port}
    elif kind in RESOLVED:
        cluster["type"] = RESOLVED[kind]
        del cluster["eds_cluster_config"]
        found = _found(world, service, port, labels, mode, None)
        # Envoy refuses a LOGICAL_DNS cluster of two endpoints.
        cluster["load_assignment"] = of_hosts(cluster["name"], islice(found, 1) if kind == "DNS_ROUND_ROBIN" else found)
        cluster.update(DNS_SETTINGS)


def is_empty(world: World, service: Service, port: ServicePort, labels: Mapping[str, str]) -> bool:
    """A subset that no endpoint found by DNS belongs to has no cluster."""
    if not isinstance(service, EntryService) or service.entry.resolution not in RESOLVED:
        return False
    return next(_found(world, service, port, labels, None, None), None) is None


def assignment(
    world: World, name: str, service: EntryService, port: ServicePort, labels: Mapping[str, str], proxy: Workload, mode: str | None
) -> Json:
    """As of a service of the mesh (endpoints.py)."""
    return of_hosts(name, _found(world, service, port, labels, mode, proxy))


def _found(
    world: World, service: EntryService, port: ServicePort, labels: Mapping[str, str], mode: str | None, proxy: Workload | None
) -> Iterator[Json]:
    """Of every entry's port: of the same name where endpoints are listed, of the same number where they are resolved, as in istiod."""
    by_name = service.entry.resolution in RESOLVED
    for one in entries_of(world, service):
        if by_name and one.entry.resolution in RESOLVED and one.entry.resolution != service.entry.resolution:
            continue
        for own in one.ports:
            if own.port == port.port if by_name else own.name == port.name:
                yield from _endpoints(world, one, own, labels, mode, proxy, by_name=by_name)


@per_world
def entries_of(world: World, service: EntryService) -> list[EntryService]:
    """Each entry once, at whichever of its addresses."""
    found = [one for one in world.entries if (one.name, one.namespace) == (service.name, service.namespace)]
    return list({one.resource.key: one for one in reversed(found)}.values())[::-1]


def _endpoints(
    world: World,
    one: EntryService,
    port: ServicePort,
    labels: Mapping[str, str],
    mode: str | None,
    proxy: Workload | None,
    *,
    by_name: bool,
) -> Iterator[Json]:
    if one.entry.workload_selector is not None:
        for workload in world.workloads_of(one):
            address = workload.address_for(proxy) if proxy is not None else workload.ip
            if workload.name in world.ready and labels.items() <= workload.labels.items() and address is not None:
                yield workload_endpoint(world, one, port, workload, address, mode)
        return
    for index, endpoint in enumerate(_given(one)):
        if labels.items() <= endpoint.labels.items() and (by_name or is_address(endpoint.address)):
            yield _endpoint(world, one, port, endpoint, index, mode)


def _given(one: EntryService) -> tuple[EntryEndpoint, ...]:
    """Without any, what DNS says of the host itself."""
    if one.entry.endpoints or one.entry.workload_selector is not None or one.entry.resolution not in RESOLVED:
        return one.entry.endpoints
    return (EntryEndpoint(address=one.name),)


def _endpoint(world: World, one: EntryService, port: ServicePort, endpoint: EntryEndpoint, index: int, mode: str | None) -> Json:
    name = f"{one.resource.key.name}-{index}" if one.entry.endpoints else one.resource.key.name
    app, version = endpoint.labels.get("app", name), endpoint.labels.get("version", "")
    number = endpoint.ports.get(port.name) or port.target_port
    metadata: Json = {"istio": {"workload": f"{name};{one.namespace};{app};{version};Kubernetes"}}
    if _takes_mtls(world, one, endpoint, number, mode):
        metadata = {"envoy.transport_socket_match": {"tlsMode": "istio"}, **metadata}
    return {
        "endpoint": {"address": socket_address(endpoint.address, number)},
        "metadata": {"filter_metadata": metadata},
        "load_balancing_weight": endpoint.weight or 1,
    }


def _takes_mtls(world: World, one: EntryService, endpoint: EntryEndpoint, number: int, mode: str | None) -> bool:
    """An endpoint with a service account has a sidecar, if its labels do not say otherwise (istiod's getTLSModeFromWorkloadEntry)."""
    if not _has_sidecar(endpoint):
        return False
    return mode == "ISTIO_MUTUAL" if mode is not None else mode_at(world, one.namespace, endpoint.labels, number) != "DISABLE"


def _has_sidecar(endpoint: EntryEndpoint) -> bool:
    return endpoint.labels.get(TLS_MODE_LABEL, "istio" if endpoint.service_account else "") == "istio"


def all_have_sidecars(world: World, service: EntryService, port: ServicePort) -> bool:
    """And there is one at the port."""
    entries = [one for one in entries_of(world, service) if any(own.port == port.port for own in one.ports)]
    found = [has_sidecar(workload) for one in entries for workload in world.workloads_of(one) if workload.name in world.ready]
    found += [_has_sidecar(endpoint) for one in entries for endpoint in _given(one)]
    return bool(found) and all(found)


@per_world
def accounts(world: World, service: EntryService) -> list[str]:
    """Whom its servers may prove to be: the last entry's subjectAltNames, and the accounts of all endpoints and workloads."""
    entries = entries_of(world, service)
    found = set(entries[-1].entry.subject_alt_names)
    for one in entries:
        found |= {_spiffe_id(one, endpoint) for endpoint in one.entry.endpoints if endpoint.service_account}
        found |= {workload.spiffe_id for workload in world.workloads_of(one)}
    return sorted(found)


def _spiffe_id(one: EntryService, endpoint: EntryEndpoint) -> str:
    return f"spiffe://cluster.local/ns/{one.namespace}/sa/{endpoint.service_account}"
