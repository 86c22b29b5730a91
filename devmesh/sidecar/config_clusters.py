"""Cluster, ClusterLoadAssignment and transport sockets (config/cluster/v3, endpoint/v3, tls/v3) -> frozen values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from devmesh.sidecar.config import (
    CircuitBreakers,
    Cluster,
    ConfigError,
    Endpoint,
    Keepalive,
    OutlierDetection,
    SlowStart,
    TlsContext,
    TransportChoice,
)
from devmesh.sidecar.config_common import Json, limit, optional_number, refuse, seconds

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
SLOW_STARTING = frozenset({"ROUND_ROBIN", "LEAST_REQUEST"})
KINDS = frozenset({"EDS", "STATIC", "STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST"})
POLICIES = frozenset({"ROUND_ROBIN", "LEAST_REQUEST", "RING_HASH", "RANDOM", "MAGLEV", "CLUSTER_PROVIDED"})
UNREAD_CLUSTER = ("cluster_type", "load_balancing_policy", "health_checks", "lb_subset_config", "transport_socket_matcher")
UNREAD_VALIDATION = (
    "crl", "custom_validator_config", "max_verify_depth", "allow_expired_certificate",
    "require_signed_certificate_timestamp",
)  # fmt: skip
PROXY_PROTOCOL = "upstream_proxy_protocol"
SAN_MATCHES = ("exact", "prefix", "suffix", "contains")


def parse_cluster(cluster: Json, assignments: Mapping[str, Json]) -> Cluster:
    name = cluster["name"]
    kind = cluster.get("type", "STATIC")
    policy = cluster.get("lb_policy", "ROUND_ROBIN")
    if kind not in KINDS:
        raise ConfigError(name, f"cluster type {kind} is not supported")
    if policy not in POLICIES:
        raise ConfigError(name, f"lb_policy {policy} is not supported")
    refuse(name, cluster, UNREAD_CLUSTER)
    service = (cluster.get("metadata", {}).get("filter_metadata", {}).get("istio", {}).get("services") or [{}])[0]
    http = cluster.get("typed_extension_protocol_options", {}).get(HTTP_OPTIONS, {})
    common = http.get("common_http_protocol_options", {})
    upstream_http = http.get("upstream_http_protocol_options", {})
    refuse(name, upstream_http, ("override_auto_sni_header",), "upstream_http_protocol_options.")
    assignment = _assignment(cluster, assignments)
    return Cluster(
        name=name,
        kind=kind,
        lb_policy=policy,
        endpoints=_endpoints(cluster, assignment),
        connect_timeout=seconds(cluster.get("connect_timeout"), 5.0) or 5.0,
        breakers=_breakers(cluster.get("circuit_breakers", {})),
        outlier=_outlier(cluster["outlier_detection"]) if "outlier_detection" in cluster else None,
        transports=tuple(_choice(name, choice) for choice in cluster.get("transport_socket_matches", ())),
        proxy_protocol=_proxy_protocol(name, cluster),
        tls=_transport(name, cluster.get("transport_socket")),
        panic_threshold=_panic(name, cluster.get("common_lb_config", {})),
        max_requests_per_connection=optional_number(common.get("max_requests_per_connection", cluster.get("max_requests_per_connection"))),
        idle_timeout=limit(common.get("idle_timeout"), 3600.0),
        max_connection_duration=limit(common.get("max_connection_duration"), None),
        keepalive=_keepalive(cluster.get("upstream_connection_options", {})),
        least_request_choices=int(cluster.get("least_request_lb_config", {}).get("choice_count", 2)),
        slow_start=_slow_start(name, cluster, policy),
        ring_hash=_ring(name, cluster.get("ring_hash_lb_config", {})),
        maglev_table_size=int(cluster.get("maglev_lb_config", {}).get("table_size", 65537)),
        overprovisioning=int(assignment.get("policy", {}).get("overprovisioning_factor", 140)),
        original_dst_port=optional_number(cluster.get("original_dst_lb_config", {}).get("upstream_port_override")),
        dns_refresh_rate=seconds(cluster.get("dns_refresh_rate"), 5.0) or 5.0,
        bind_address=cluster.get("upstream_bind_config", {}).get("source_address", {}).get("address"),
        protocol=_protocol(http),
        auto_sni=bool(upstream_http.get("auto_sni")),
        auto_san_validation=bool(upstream_http.get("auto_san_validation")),
        service=service.get("host", ""),
        service_name=service.get("name", ""),
        service_namespace=service.get("namespace", ""),
    )


def _protocol(http: Json) -> str:
    if "use_downstream_protocol_config" in http:
        return "downstream"
    if "auto_config" in http:
        return "auto"
    return "http2" if "http2_protocol_options" in http.get("explicit_http_config", {}) else "http1"


def _slow_start(name: str, cluster: Json, policy: str) -> SlowStart | None:
    """Another policy's configuration means nothing (istiod leaves it beside a hash)."""
    config: Json | None = cluster.get(f"{policy.lower()}_lb_config", {}).get("slow_start_config") if policy in SLOW_STARTING else None
    window = limit(config.get("slow_start_window"), None) if config is not None else None
    if config is None or window is None:
        return None
    aggression = float(config.get("aggression", {}).get("default_value", 1.0))
    if aggression <= 0:
        raise ConfigError(name, f"slow_start_config.aggression {aggression:g} is not above 0")
    return SlowStart(window, aggression, _percent(config, "min_weight_percent", 10.0) / 100)


def _panic(name: str, common: Json) -> float:
    refuse(name, common.get("consistent_hashing_lb_config", {}), ("use_hostname_for_hashing", "hash_balance_factor"))
    threshold = common.get("healthy_panic_threshold")
    return 50.0 if threshold is None else float(threshold.get("value", 0.0))


def _ring(name: str, ring: Json) -> tuple[int, int]:
    if ring.get("hash_function", "XX_HASH") != "XX_HASH":
        raise ConfigError(name, f"hash function {ring['hash_function']} is not supported")
    return int(ring.get("minimum_ring_size", 1024)), int(ring.get("maximum_ring_size", 8 * 1024 * 1024))


def assignment_name(cluster: Json) -> str:
    """Under which an EDS cluster's endpoints come."""
    return str(cluster.get("eds_cluster_config", {}).get("service_name") or cluster["name"])


def _assignment(cluster: Json, assignments: Mapping[str, Json]) -> Json:
    if cluster.get("type") == "EDS":
        return assignments.get(assignment_name(cluster), {})
    own: Json = cluster.get("load_assignment", {})
    return own


def _endpoints(cluster: Json, assignment: Json) -> tuple[Endpoint, ...]:
    localities = Counter(int(group.get("priority", 0)) for group in assignment.get("endpoints", ()) if group.get("lb_endpoints"))
    if "locality_weighted_lb_config" in cluster.get("common_lb_config", {}) and any(count > 1 for count in localities.values()):
        raise ConfigError(cluster["name"], "weights between localities are not supported")
    return tuple(
        _endpoint(host, int(group.get("priority", 0)))
        for group in assignment.get("endpoints", ())
        for host in group.get("lb_endpoints", ())
    )


def _endpoint(host: Json, priority: int) -> Endpoint:
    address = host["endpoint"]["address"]["socket_address"]
    metadata = host.get("metadata", {}).get("filter_metadata", {})
    match = metadata.get("envoy.transport_socket_match", {})
    return Endpoint(
        address=address["address"],
        port=int(address["port_value"]),
        weight=int(host.get("load_balancing_weight", 1)),
        priority=priority,
        healthy=host.get("health_status", "UNKNOWN") in ("UNKNOWN", "HEALTHY", "DEGRADED"),
        tls_mode=match.get("tlsMode", ""),
        labels=tuple((key, str(value)) for key, value in match.items()),
        workload=metadata.get("istio", {}).get("workload", ""),
    )


def _keepalive(options: Json) -> Keepalive | None:
    """A 0 switches all of it off (config.core.v3.TcpKeepalive; asked of Envoy 1.40)."""
    given = options.get("tcp_keepalive")
    if given is None:
        return None
    numbers = [optional_number(given.get(f"keepalive_{name}")) for name in ("probes", "time", "interval")]
    return None if 0 in numbers else Keepalive(*numbers)


def _breakers(breakers: Json) -> CircuitBreakers:
    for threshold in breakers.get("thresholds", ()):
        if threshold.get("priority", "DEFAULT") == "DEFAULT":
            budget = threshold.get("retry_budget", {})
            return CircuitBreakers(
                int(threshold.get("max_connections", 1024)),
                int(threshold.get("max_pending_requests", 1024)),
                int(threshold.get("max_requests", 1024)),
                int(threshold.get("max_retries", 3)),
                _percent(budget, "budget_percent", 20.0) if "retry_budget" in threshold else None,
                int(budget.get("min_retry_concurrency", 3)),
                limit(budget.get("budget_interval"), None),
            )
    return CircuitBreakers()


def _percent(message: Json, name: str, default: float) -> float:
    """A type.v3.Percent, whose 0 proto-JSON leaves out."""
    return float(message[name].get("value", 0.0)) if name in message else default


def _outlier(outlier: Json) -> OutlierDetection:
    numbers = {
        key: int(outlier[key])
        for key in (
            "consecutive_5xx",
            "enforcing_consecutive_5xx",
            "consecutive_gateway_failure",
            "enforcing_consecutive_gateway_failure",
            "consecutive_local_origin_failure",
            "enforcing_consecutive_local_origin_failure",
            "max_ejection_percent",
        )
        if key in outlier
    }
    base = seconds(outlier.get("base_ejection_time"), 30.0) or 30.0
    return OutlierDetection(
        **numbers,
        always_eject_one=bool(outlier.get("always_eject_one_host")),
        split_local_origin=bool(outlier.get("split_external_local_origin_errors")),
        interval=seconds(outlier.get("interval"), 10.0) or 10.0,
        base_ejection_time=base,
        max_ejection_time=seconds(outlier.get("max_ejection_time"), max(300.0, base)) or 300.0,
    )


def _choice(name: str, choice: Json) -> TransportChoice:
    match = tuple((key, str(value)) for key, value in choice.get("match", {}).items())
    return TransportChoice(choice.get("name", ""), match, _transport(name, choice.get("transport_socket")))


def _proxy_protocol(name: str, cluster: Json) -> int:
    """0 without; istiod wraps every transport socket of a cluster alike."""
    sockets = [choice.get("transport_socket", {}) for choice in cluster.get("transport_socket_matches", ())]
    versions = {_version(name, socket) for socket in sockets or [cluster.get("transport_socket", {})]}
    if len(versions) > 1:
        raise ConfigError(name, "the PROXY protocol for some of a cluster's transport sockets only is not supported")
    return versions.pop()


def _version(name: str, socket: Json) -> int:
    if not socket.get("name", "").endswith(PROXY_PROTOCOL):
        return 0
    config = socket["typed_config"].get("config", {})
    refuse(name, config, ("pass_through_tlvs", "added_tlvs"), "proxy_protocol.")
    return 2 if config.get("version", "V1") == "V2" else 1


def _transport(name: str, socket: Json | None) -> TlsContext | None:
    if socket is not None and socket["name"].endswith(PROXY_PROTOCOL):
        socket = socket["typed_config"]["transport_socket"]
    if socket is None or socket["name"].endswith("raw_buffer"):
        return None
    if not socket["name"].endswith("transport_sockets.tls"):
        raise ConfigError(name, f"transport socket {socket['name']} is not supported")
    return parse_tls(name, socket["typed_config"])


def parse_tls(owner: str, context: Json) -> TlsContext:
    """An UpstreamTlsContext or DownstreamTlsContext. What would check a peer more strictly than we do is refused."""
    common = context.get("common_tls_context", {})
    combined = common.get("combined_validation_context", {})
    validation = combined.get("validation_context_sds_secret_config", common.get("validation_context_sds_secret_config"))
    checks = combined.get("default_validation_context", common.get("validation_context", {}))
    refuse(owner, checks, UNREAD_VALIDATION, "validation_context.")
    refuse(owner, common, ("tls_certificates", "tls_certificate_provider_instance", "custom_handshaker"), "common_tls_context.")
    secrets = common.get("tls_certificate_sds_secret_configs", ())
    params = common.get("tls_params", {})
    return TlsContext(
        secret=secrets[0]["name"] if secrets else "",
        validation=validation["name"] if validation else None,
        sans=_sans(owner, checks),
        alpn=tuple(name.encode() for name in common.get("alpn_protocols", ())),
        sni=context.get("sni", ""),
        require_client_certificate=bool(context.get("require_client_certificate")),
        min_version=params.get("tls_minimum_protocol_version", "TLSv1_2"),
        max_version=params.get("tls_maximum_protocol_version", "TLSv1_3"),
        more_secrets=tuple(one["name"] for one in secrets[1:]),
        cipher_suites=tuple(params.get("cipher_suites", ())),
        certificate_hashes=tuple(one.replace(":", "").lower() for one in checks.get("verify_certificate_hash", ())),
        certificate_spkis=tuple(checks.get("verify_certificate_spki", ())),
        insecure=validation is None and "trusted_ca" not in checks,
    )


def _sans(owner: str, checks: Json) -> tuple[tuple[str, str], ...]:
    typed = [matcher["matcher"] for matcher in checks.get("match_typed_subject_alt_names", ())]
    return tuple(_san(owner, matcher) for matcher in [*checks.get("match_subject_alt_names", ()), *typed])


def _san(owner: str, matcher: Json) -> tuple[str, str]:
    """A name that cannot be checked must not be left out: with an empty list every peer of the trust domain would pass."""
    refuse(owner, matcher, ("ignore_case",), "subject alternative name: ")
    for kind in SAN_MATCHES:
        if kind in matcher:
            return kind, matcher[kind]
    raise ConfigError(owner, f"subject alternative name matcher {sorted(matcher)} is not supported")
