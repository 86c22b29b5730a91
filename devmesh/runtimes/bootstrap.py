"""What every runtime's sidecars are started with: `bootstrap.json` (devmesh/README.md) without what a runtime adds of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devmesh.config.topology import Workload
from devmesh.sidecar.bootstrap import CONTROL_PLANE


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the mesh's own servers are, and what every sidecar is told of the mesh's settings. `secret_ttl` is seconds."""

    xds_url: str
    otlp_url: str
    mesh_id: str
    access_log_encoding: str
    secret_ttl: float | None = None

    @property
    def traces_url(self) -> str:
        return f"{self.otlp_url}/v1/traces"


def tracing_environment(workload: Workload, otlp_url: str) -> dict[str, str]:
    """Where an app that has OpenTelemetry's SDK sends its own spans (opentelemetry.io, "Environment Variable Specification")."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",  # the SDKs' defaults differ
        "OTEL_SERVICE_NAME": workload.service,
    }


def sidecar_bootstrap(
    workload: Workload, servers: Servers, ca: Mapping[str, str], access_log: str, dial: dict[str, str], files: str
) -> dict[str, Any]:
    """`dial` maps the workload's own addresses to where its app is; `files` is where certificates that are named by file lie."""
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
        "ca": {**ca, **({} if servers.secret_ttl is None else {"secret_ttl": servers.secret_ttl})},
        "dial": dial,
        "files": files,
        "telemetry": {
            "otlp_url": servers.traces_url,
            "access_log_file": access_log,
            "access_log_encoding": servers.access_log_encoding,
        },
        "mesh": {"outbound_traffic_policy": "ALLOW_ANY", "forbidden_destinations": []},
    }
