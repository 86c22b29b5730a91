"""ClusterLoadAssignments: which workloads a cluster reaches."""

from __future__ import annotations

from collections.abc import Mapping

from devmesh.compiler.security import accepts_mtls
from devmesh.compiler.shared import Json, socket_address
from devmesh.compiler.world import World, matches, per_world
from devmesh.config.topology_types import Service, ServicePort, Workload


def assignment(
    world: World, name: str, service: Service, port: ServicePort, labels: Mapping[str, str], proxy: Workload, *, plaintext: bool
) -> Json:
    """One cluster's endpoints, at addresses that `proxy` shares a network with.

    `labels` are the subset's; `plaintext`: a DestinationRule turned the mesh's own TLS off.
    """
    hosts = [
        _endpoint(world, service, port, workload, address, plaintext=plaintext)
        for workload in world.workloads_of(service)
        if workload.name in world.ready and (not labels or matches(labels, workload.labels))
        if (address := workload.address_for(proxy)) is not None
    ]
    if not hosts:
        return {"cluster_name": name}
    return {"cluster_name": name, "endpoints": [{"locality": {}, "lb_endpoints": hosts, "load_balancing_weight": len(hosts)}]}


@per_world
def _endpoint(world: World, service: Service, port: ServicePort, workload: Workload, address: str, *, plaintext: bool) -> Json:
    app = workload.labels.get("app", service.name)
    version = workload.labels.get("version", "")
    metadata: Json = {"istio": {"workload": f"{workload.name};{workload.namespace};{app};{version};Kubernetes"}}
    if not plaintext and accepts_mtls(world, workload, port.target_port):
        metadata = {"envoy.transport_socket_match": {"tlsMode": "istio"}, **metadata}
    return {
        "endpoint": {"address": socket_address(address, port.target_port)},
        "health_status": "HEALTHY",
        "metadata": {"filter_metadata": metadata},
        "load_balancing_weight": 1,
    }
