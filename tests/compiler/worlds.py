"""Small worlds: a caller, two versions of a callee with two ports, a gateway."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from devmesh.compiler import MeshSettings, World, compile_proxy
from devmesh.config.loader import load_text
from devmesh.config.topology import Topology


def workload(name: str, number: int, namespace: str = "default", **more: Any) -> dict[str, Any]:
    app, _, version = name.rpartition("-")
    labels = {"app": app, "version": version}
    return {"name": name, "namespace": namespace, "ip": f"10.0.0.{number}", "labels": labels, "serviceAccount": app, **more}


def service(name: str, number: int, ports: dict[str, int]) -> dict[str, Any]:
    listed = [{"name": port, "port": value, "targetPort": value} for port, value in ports.items()]
    return {"name": name, "namespace": "default", "clusterIP": f"10.96.0.{number}", "selector": {"app": name}, "ports": listed}


TOPOLOGY = {
    "services": [service("web", 1, {"http": 9080}), service("api", 2, {"http": 8000, "tcp": 6000})],
    "workloads": [
        workload("web-v1", 1),
        workload("api-v1", 2),
        workload("api-v2", 3),
        workload("gate-v1", 4, "istio-system", gateway=True),
    ],
}


def world(*yaml: str, endpoints: Iterable[str] | None = None, settings: MeshSettings | None = None) -> World:
    loaded = load_text("\n---\n".join(yaml), "mesh.yaml")
    assert not loaded.errors, [str(one) for one in loaded.errors]
    return World.from_topology(Topology.from_json(TOPOLOGY), loaded.resources, settings, endpoints)


def compiled(workload: str, *yaml: str, **more: Any) -> dict[str, dict[str, Any]]:
    """{kind: {name: resource}} of one workload."""
    snapshot = compile_proxy(world(*yaml, **more), workload).snapshot.to_json()
    kinds = {"listeners": "name", "routes": "name", "clusters": "name", "endpoints": "cluster_name"}
    return {kind: {one[field]: one for one in snapshot[kind]} for kind, field in kinds.items()}


def document(kind: str, name: str, spec: str, namespace: str = "default", api: str = "networking.istio.io/v1") -> str:
    return f"apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}"


def virtual_service(spec: str, name: str = "api") -> str:
    return document("VirtualService", name, spec)


def destination_rule(spec: str, name: str = "api") -> str:
    return document("DestinationRule", name, spec)


def peer_authentication(spec: str, name: str = "default", namespace: str = "default") -> str:
    return document("PeerAuthentication", name, spec, namespace, "security.istio.io/v1")


def fault(spec: str, name: str = "f1") -> str:
    return document("Fault", name, spec, api="devmesh.dev/v1")
