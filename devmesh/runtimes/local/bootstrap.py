"""What a sidecar and an app are started with: `bootstrap.json` (devmesh/README.md) and the environment that leads an app to its sidecar."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.runtimes.local.plan import OUTBOUND_PORT, WorkloadPlan
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
        "dial": {f"{workload.ip}:{port}": f"127.0.0.1:{app}" for port, app in plan.app_ports.items()},
        "telemetry": {
            "otlp_url": servers.traces_url,
            "access_log_file": str(access_log),
            "access_log_encoding": servers.access_log_encoding,
        },
        "mesh": {"outbound_traffic_policy": "ALLOW_ANY", "forbidden_destinations": []},
    }


def app_environment(plan: WorkloadPlan, servers: Servers) -> dict[str, str]:
    """The user's own environment, the compose file's over it, ours over both."""
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
