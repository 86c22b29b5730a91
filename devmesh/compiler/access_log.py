"""meshConfig.accessLogFile: who logs what, as istiod compiles it (istio/istio pilot/pkg/networking/core/accesslog.go)."""

from __future__ import annotations

from collections.abc import Iterable

from devmesh.compiler.shared import TYPE, Json
from devmesh.compiler.world import MeshSettings

# Istio's default format: the JSON field and Envoy's operator for it, in the order of the text.
OPERATORS = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
}
TEXT = '[{}] "{} {} {}" {} {} {} {} "{}" {} {} {} {} "{}" "{}" "{}" "{}" "{}" {} {} {} {} {} {}\n'
NO_FILTER_CHAIN = {"response_flag_filter": {"flags": ["NR"]}}
LOGGED_LISTENERS = ("virtualInbound", "virtualOutbound")
# Connections to the listener's own port: refused, and no traffic.
NOT_LOGGED = ("virtualInbound-blackhole", "virtualOutbound-blackhole")


def with_access_logs(listeners: Iterable[Json], settings: MeshSettings, *, gateway: bool = False) -> list[Json]:
    """The listeners, changed in place: each filter that ends a chain logs; what no chain took, the two that catch all and a gateway's do."""
    out = list(listeners)
    if not settings.access_log_file:
        return out
    log = _log(settings)
    for listener in out:
        if gateway or listener["name"] in LOGGED_LISTENERS:
            listener["access_log"] = [{**log, "filter": NO_FILTER_CHAIN}]
        for chain in (*listener["filter_chains"], listener.get("default_filter_chain")):
            if chain is not None and chain.get("name") not in NOT_LOGGED:
                chain["filters"][-1]["typed_config"]["access_log"] = [log]
    return out


def _log(settings: MeshSettings) -> Json:
    if settings.access_log_encoding == "JSON":
        log_format: Json = {"json_format": OPERATORS, "json_format_options": {}}
    else:
        log_format = {"text_format_source": {"inline_string": TEXT.format(*OPERATORS.values())}}
    config = {
        "@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": settings.access_log_file,
        "log_format": log_format,
    }
    return {"name": "envoy.access_loggers.file", "typed_config": config}
