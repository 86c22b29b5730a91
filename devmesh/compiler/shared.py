"""Pieces of xDS that istiod writes the same everywhere. Proto-JSON with proto field names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from devmesh.config.model import SourcePosition

Json = dict[str, Any]
UNLIMITED = 4294967295
TYPE = "type.googleapis.com/"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def ads() -> Json:
    return {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}


def secret(name: str) -> Json:
    """An SDS secret; sidecars answer `sds-grpc` themselves."""
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
        "set_node_on_first_message_only": True,
    }
    return {"name": name, "sds_config": {"api_config_source": source, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}}


def file_secret(name: str) -> Json:
    """A file of the workload's, which istio-agent serves under this name."""
    named = secret(name)
    del named["sds_config"]["initial_fetch_timeout"]
    return named


def socket_address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def server_names(hosts: Iterable[str]) -> Json:
    """A filter chain's match for these, sorted as istiod sorts them; nothing where one is "*"."""
    names = sorted(hosts)
    return {} if "*" in names else {"filter_chain_match": {"server_names": names}}


def million(percent: float) -> Json:
    """A FractionalPercent as istiod translates a Percent."""
    numerator = int(percent * 10000)
    return {"numerator": numerator, "denominator": "MILLION"} if numerator else {"denominator": "MILLION"}


def config_path(group: str, version: str, namespace: str, kind: str, name: str) -> str:
    return f"/apis/{group}/{version}/namespaces/{namespace}/{kind}/{name}"


def metadata(config: str, source: SourcePosition) -> Json:
    """What a proxy is told of a rule: `config` names the resource, as istiod does; `source` is its line, which only we know."""
    return {"filter_metadata": {"istio": {"config": config}, **said_at(source)}}


def said_at(source: SourcePosition) -> Json:
    return {"devmesh": {"source": str(source)}}


def tcp_proxy(stat_prefix: str, cluster: str) -> Json:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": stat_prefix,
            "cluster": cluster,
        },
    }


def http_filter(name: str, message: str) -> Json:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.{name}.v3.{message}"}}


HTTP_FILTERS = (http_filter("fault", "HTTPFault"), http_filter("cors", "Cors"), http_filter("router", "Router"))
HTTP_INSPECTOR = {
    "name": "envoy.filters.listener.http_inspector",
    "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"},
}
TLS_INSPECTOR = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", "initial_read_buffer_size": 512},
}


def _tracing(sampling: float) -> Json:
    return {"client_sampling": {"value": 100}, "random_sampling": {"value": sampling}, "overall_sampling": {"value": 100}}


def http_manager(stat_prefix: str, routes: Json, sampling: float | None, **more: Any) -> Json:
    """An HttpConnectionManager; `routes` is `{"rds": ..}` or `{"route_config": ..}`, `more` overrides. `sampling` is percent, None: no traces."""
    config: Json = {
        "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        **routes,
        "http_filters": list(HTTP_FILTERS),
        **({"tracing": _tracing(sampling)} if sampling is not None else {}),
        "stream_idle_timeout": "0s",
        "use_remote_address": False,
        "proxy_100_continue": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "request_id_extension": {
            "typed_config": {
                "@type": f"{TYPE}envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "use_request_id_for_trace_sampling": True,
            }
        },
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config | more}
