"""One configuration for both proxies: listeners, clusters and secrets as xDS, one hop or two, telemetry off or on."""

from __future__ import annotations

from typing import Any

from tests.conformance.envoy_mesh import SPIFFE, Json, Secrets

TYPE = "type.googleapis.com/envoy."
TLS = TYPE + "extensions.transport_sockets.tls.v3."
OTEL = "opentelemetry"
ALPN = "istio-http/1.1"  # one that both sides name, so that neither proxy negotiates HTTP/2


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def assignment(name: str, port: int) -> Json:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}


def tls(kind: str, **more: Any) -> Json:
    matcher = {"san_type": "URI", "matcher": {"prefix": SPIFFE}}
    common = {
        "alpn_protocols": [ALPN],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [{"name": "default"}],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [matcher]},
            "validation_context_sds_secret_config": {"name": "ROOTCA"},
        },
    }
    config = {"@type": f"{TLS}{kind}TlsContext", "common_tls_context": common, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def cluster(name: str, port: int, *, mtls: bool) -> Json:
    out: Json = {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment(name, port)}
    if mtls:
        out["transport_socket"] = tls("Upstream", sni="bench")
    return out


def listener(port: int, *, inbound: bool, mtls: bool, access_log: Json | None) -> Json:
    manager: Json = {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "generate_request_id": True,
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}}
        ],
        "route_config": {
            "name": "bench",
            "virtual_hosts": [
                {
                    "name": "bench",
                    "domains": ["*"],
                    "routes": [{"name": "bench", "match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "15s"}}],
                }
            ],
        },
    }
    if access_log is not None:
        manager["tracing"] = {"random_sampling": {"value": 100}, "provider": _provider()}
        manager["access_log"] = [access_log]
    chain: Json = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if mtls:
        chain["transport_socket"] = tls("Downstream", require_client_certificate=True)
    return {
        "name": "virtualInbound" if inbound else f"0.0.0.0_{port}",
        "address": address(port),
        "traffic_direction": "INBOUND" if inbound else "OUTBOUND",
        "filter_chains": [chain],
    }


def _provider() -> Json:
    service = {"http_uri": {"uri": "http://bench/v1/traces", "cluster": OTEL, "timeout": "1s"}}
    config = {"@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "http_service": service, "service_name": "bench"}
    return {"name": "envoy.tracers.opentelemetry", "typed_config": config}


def access_log(path: str) -> Json:
    fields = {
        "start_time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "protocol": "%PROTOCOL%",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "upstream_host": "%UPSTREAM_HOST%",
        "upstream_cluster": "%UPSTREAM_CLUSTER%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "authority": "%REQ(:AUTHORITY)%",
        "route_name": "%ROUTE_NAME%",
    }
    config = {"@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": {"json_format": fields}}
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def envoy(listeners: list[Json], clusters: list[Json], collector: int, secrets: Secrets, account: str) -> Json:
    everything = [*clusters, cluster(OTEL, collector, mtls=False)]
    static = [{key: value for key, value in secret.items() if key != "@type"} for secret in secrets.sds(account)]
    resources = {"listeners": listeners, "clusters": everything, "secrets": static}
    return {"node": {"id": "bench", "cluster": "bench"}, "static_resources": resources}


def ours(
    listeners: list[Json], clusters: list[Json], secrets: Secrets, account: str, *, port: int, snapshot: str, telemetry: Json
) -> tuple[Json, Json]:
    """The bootstrap and the snapshot that it names."""
    workload = {"name": account, "service": account, "version": "v1", "namespace": "default", "ip": "127.0.0.1"}
    outbound = listeners[0]["traffic_direction"] == "OUTBOUND"
    bootstrap = {
        "node": {"id": f"sidecar~127.0.0.1~{account}.default~default.svc.cluster.local", "cluster": account, "metadata": {}},
        "workload": {**workload, "spiffe_id": SPIFFE + account, "gateway": outbound},
        "snapshot": snapshot,
        "sockets": [{"role": "inbound", "address": "127.0.0.1", "port": port}],
        "telemetry": telemetry,
    }
    return bootstrap, {"version": "1", "listeners": listeners, "clusters": clusters, "secrets": secrets.snapshot(account)}
