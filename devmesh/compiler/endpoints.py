"""ClusterLoadAssignments: which workloads a cluster reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from devmesh.compiler.security import takes_mtls
from devmesh.compiler.shared import Json, socket_address
from devmesh.compiler.world import World, matches, per_world
from devmesh.config.topology_types import Service, ServicePort, Workload


def assignment(
    world: World, name: str, service: Service, port: ServicePort, labels: Mapping[str, str], proxy: Workload, mode: str | None
) -> Json:
    """One cluster's endpoints, at addresses that `proxy` shares a network with.

    `labels` are the subset's; `mode` is the DestinationRule's for TLS, before which PeerAuthentication does not count.
    """
    return of_hosts(
        name,
        [
            workload_endpoint(world, service, port, workload, address, mode)
            for workload in world.workloads_of(service)
            if workload.name in world.ready and (not labels or matches(labels, workload.labels))
            if (address := workload.address_for(proxy)) is not None
        ],
    )


def of_hosts(name: str, hosts: Iterable[Json]) -> Json:
    """All in one locality, which weighs what they weigh together."""
    found = list(hosts)
    if not found:
        return {"cluster_name": name}
    total = sum(one["load_balancing_weight"] for one in found)
    return {"cluster_name": name, "endpoints": [{"locality": {}, "lb_endpoints": found, "load_balancing_weight": total}]}


@per_world
def workload_endpoint(world: World, service: Service, port: ServicePort, workload: Workload, address: str, mode: str | None) -> Json:
    app = workload.labels.get("app", service.name)
    version = workload.labels.get("version", "")
    metadata: Json = {"istio": {"workload": f"{workload.name};{workload.namespace};{app};{version};Kubernetes"}}
    if takes_mtls(world, workload, port.target_port, mode):
        metadata = {"envoy.transport_socket_match": {"tlsMode": "istio"}, **metadata}
    return {
        "endpoint": {"address": socket_address(address, port.target_port)},
        "health_status": "HEALTHY",
        "metadata": {"filter_metadata": metadata},
        "load_balancing_weight": 1,
    }
