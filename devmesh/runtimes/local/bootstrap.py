"""What a sidecar and an app are started with: `bootstrap.json` (devmesh/README.md) and the environment that leads an app to its sidecar."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devmesh.pods.names import HOST_GATEWAY, HOST_GATEWAY_NAME
from devmesh.runtimes.local.plan import OUTBOUND_PORT, SHIFT, WorkloadPlan, first_bindable_port
from devmesh.sidecar.bootstrap import CONTROL_PLANE


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the mesh's own servers are."""

    xds_url: str
    otlp_url: str
    mesh_id: str
    access_log_encoding: str

    @property
    def traces_url(self) -> str:
        return f"{self.otlp_url}/v1/traces"


def sidecar_bootstrap(plan: WorkloadPlan, servers: Servers, ca: dict[str, str], access_log: Path) -> dict[str, Any]:
    workload = plan.workload
    kind = "router" if workload.gateway else "sidecar"
    domain = f"{workload.namespace}.svc.cluster.local"
    return {
        "node": {
            "id": f"{kind}~{workload.ip}~{workload.name}.{workload.namespace}~{domain}",
            "cluster": f"{workload.service}.{workload.namespace}",
            "metadata": {
                "NAMESPACE": workload.namespace,
                "LABELS": dict(workload.labels),
                "SERVICE_ACCOUNT": workload.service_account,
                "WORKLOAD_NAME": workload.name,
                "MESH_ID": servers.mesh_id,
            },
        },
        "workload": {
            "name": workload.name,
            "service": workload.service,
            "version": workload.version,
            "namespace": workload.namespace,
            "ip": workload.ip,
            "spiffe_id": workload.spiffe_id,
            "gateway": workload.gateway,
        },
        "xds": {"url": servers.xds_url, "spiffe_id": str(CONTROL_PLANE)},
        "snapshot": None,
        "ca": ca,
        "dial": {f"{workload.ip}:{port}": _app_address(plan, app) for port, app in plan.app_ports.items()},
        "shift": {"below": first_bindable_port(), "by": SHIFT},
        **(_pod_settings(servers) if plan.interception == "namespace" else {}),
        "telemetry": {
            "otlp_url": servers.traces_url,
            "access_log_file": str(access_log),
            "access_log_encoding": servers.access_log_encoding,
        },
        "mesh": {"outbound_traffic_policy": "ALLOW_ANY", "forbidden_destinations": []},
    }


def _app_address(plan: WorkloadPlan, port: int) -> str:
    return f"{plan.workload.ip if plan.interception == 'namespace' else '127.0.0.1'}:{port}"


def _pod_settings(servers: Servers) -> dict[str, Any]:
    """What a pod's addresses mean outside; the app's own spans go to the collector as they are."""
    return {
        "aliases": {HOST_GATEWAY: "127.0.0.1"},
        "alias_names": {HOST_GATEWAY_NAME: HOST_GATEWAY},
        "excluded": [f"{HOST_GATEWAY}:{urlsplit(servers.otlp_url).port}"],
    }


def app_environment(plan: WorkloadPlan, servers: Servers) -> dict[str, str]:
    """The user's own environment, the compose file's over it, ours over both."""
    if plan.interception == "namespace":
        return _pod_environment(plan, servers)
    workload = plan.workload
    proxy = f"http://{workload.ip}:{OUTBOUND_PORT}"
    environment = {
        **os.environ,
        **workload.environment,
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "NODE_USE_ENV_PROXY": "1",
        "POD_NAME": workload.name,
        "HOST": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": servers.otlp_url,
        "OTEL_SERVICE_NAME": workload.service,
    }
    if plan.app_ports:
        environment["PORT"] = str(next(iter(plan.app_ports.values())))
    return environment


def _pod_environment(plan: WorkloadPlan, servers: Servers) -> dict[str, str]:
    """Nothing in it is about the mesh: a container has its host name and where its spans go, too."""
    workload = plan.workload
    collector = urlsplit(servers.otlp_url)
    ours = {
        "HOSTNAME": workload.name,
        "POD_NAME": workload.name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST_GATEWAY_NAME}:{collector.port}",
        "OTEL_SERVICE_NAME": workload.service,
    }
    return {**os.environ, **ours, **workload.environment}
