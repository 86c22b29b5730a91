"""Clusters: one per service port and one per subset of it, in istiod's order; DestinationRule on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devmesh.compiler.destination_rules import Client, Policy, Rule, policy_for, rule_for, subset_labels, subset_policy
from devmesh.compiler.downstream_tls import CA_SUFFIX, credential
from devmesh.compiler.entries import EntryService, as_addressed
from devmesh.compiler.entry_endpoints import accounts, all_have_sidecars, is_empty, resolve
from devmesh.compiler.policies import leaves_endpoints_to_clients, passes_through, tls_mode
from devmesh.compiler.security import has_sidecar, namespace_mode
from devmesh.compiler.shared import HTTP_OPTIONS, TYPE, UNLIMITED, Json, ads, config_path, file_secret, said_at, secret
from devmesh.compiler.world import MeshSettings, World, per_world
from devmesh.config.durations import format_duration
from devmesh.config.istio_destination import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHashLB,
    HTTPSettings,
    LoadBalancerSettings,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TCPSettings,
)
from devmesh.config.model import Resource
from devmesh.config.topology_types import Service, ServicePort

HTTP2: Json = {"explicit_http_config": {"http2_protocol_options": {}}}
RAW_BUFFER = f"{TYPE}envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
WITH_PROXY = f"{TYPE}envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
SLOW_STARTING = {"ROUND_ROBIN": "round_robin_lb_config", "LEAST_REQUEST": "least_request_lb_config"}
LB_POLICIES = {"LEAST_CONN": "LEAST_REQUEST", "LEAST_REQUEST": "LEAST_REQUEST", "RANDOM": "RANDOM", "ROUND_ROBIN": "ROUND_ROBIN"}
TLS_PARAMS: Json = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
DOWNSTREAM_PROTOCOL: Json = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}


@per_world
def service_clusters(world: World, service: Service, port: ServicePort, client: Client, *, at_gateway: bool = False) -> list[Json]:
    """The default cluster of a port, then its subsets."""
    rule = rule_for(world, service, client)
    if rule is None:
        return [_cluster(world, service, port, "", Policy(), None, {}, at_gateway=at_gateway)]
    spec = rule.spec
    built = []
    for name in ("", *(subset.name for subset in spec.subsets)):
        policy, labels = subset_policy(spec, name, port.port), subset_labels(spec, name)
        direct, by_client = passes_through(spec, name, port.port), leaves_endpoints_to_clients(spec, name)
        if direct or not is_empty(world, service, port, labels):
            built.append(
                _cluster(world, service, port, name, policy, rule, labels, at_gateway=at_gateway, direct=direct, by_client=by_client)
            )
    return built


def cluster_name(service: str, port: int, subset: str) -> str:
    return f"outbound|{port}|{subset}|{service}"


def _cluster(
    world: World,
    service: Service,
    port: ServicePort,
    subset: str,
    policy: Policy,
    rule: Rule | None,
    labels: dict[str, str],
    *,
    at_gateway: bool,
    direct: bool = False,
    by_client: bool = False,
) -> Json:
    """`direct`: it goes where the client addressed it, whatever the policy merged for a subset says; `by_client`: so istiod thinks for mTLS."""
    name = cluster_name(service.hostname, port.port, subset)
    istio: Json = {"services": [service_metadata(service)]}
    source: Json = {}
    if rule is not None:
        istio["config"] = _config(rule.resource)
        source = said_at(rule.sources[subset])
    elif isinstance(service, EntryService):
        source = said_at(service.resource.position("spec.hosts"))
    if subset:
        istio["subset"] = subset
    elif isinstance(service, EntryService) and service.is_external:
        istio["external"] = True
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ads(), "service_name": name},
        "connect_timeout": world.settings.connect_timeout,
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [_thresholds()]},
        "common_lb_config": {"healthy_panic_threshold": {}},
        "metadata": {"filter_metadata": {"istio": istio, **source}},
    }
    _protocol(cluster, port, at_gateway=at_gateway)
    if direct and subset:
        as_addressed(cluster)
    elif isinstance(service, EntryService):
        mode = tls_mode(rule.spec, subset, port.port) if rule is not None else None
        resolve(world, cluster, service, port, labels, mode, at_gateway=at_gateway)
    if cluster["type"] != "ORIGINAL_DST":
        _load_balancer(cluster, policy.load_balancer)
    _connection_pool(cluster, policy.connection_pool)
    _retry_budget(cluster, policy.retry_budget)
    _outlier(cluster, policy.outlier_detection)
    _tls(world, cluster, service, port, subset, policy.tls, at_gateway=at_gateway, by_client=by_client)
    if policy.proxy_protocol is not None:
        _proxy_protocol(cluster, policy.proxy_protocol)
    return cluster


def _proxy_protocol(cluster: Json, protocol: ProxyProtocol) -> None:
    """A header before whatever the transport sockets do."""
    matches = cluster.get("transport_socket_matches", ())
    if not matches:
        cluster.setdefault("transport_socket", {"name": "raw_buffer", "typed_config": {"@type": RAW_BUFFER}})
    for holder in matches or (cluster,):
        config: Json = {"config": {"version": "V2"} if protocol.version == "V2" else {}, "transport_socket": holder["transport_socket"]}
        holder["transport_socket"] = {
            "name": "envoy.transport_sockets.upstream_proxy_protocol",
            "typed_config": {"@type": WITH_PROXY, **config},
        }


def _options(cluster: Json) -> Json:
    """The cluster's HttpProtocolOptions, made when there are none."""
    every: Json = cluster.setdefault("typed_extension_protocol_options", {})
    options: Json = every.setdefault(HTTP_OPTIONS, {"@type": TYPE + HTTP_OPTIONS})
    return options


def _protocol(cluster: Json, port: ServicePort, *, at_gateway: bool = False) -> None:
    """Only sidecars sniff what a port without a protocol speaks."""
    if port.protocol == "http2":
        _options(cluster).update(HTTP2)
    elif port.protocol == "auto" and not at_gateway:
        _options(cluster).update(DOWNSTREAM_PROTOCOL)


def _thresholds() -> Json:
    return dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNLIMITED)


def _load_balancer(cluster: Json, settings: LoadBalancerSettings | None) -> None:
    if settings is None:
        return
    if settings.simple in LB_POLICIES:
        cluster["lb_policy"] = LB_POLICIES[settings.simple]
    elif settings.simple == "PASSTHROUGH":
        as_addressed(cluster)
    if cluster["lb_policy"] in SLOW_STARTING:
        _slow_start(cluster, settings, SLOW_STARTING[cluster["lb_policy"]])
    if settings.consistent_hash is not None:
        _hashing(cluster, settings.consistent_hash)
    if cluster["lb_policy"] == "ROUND_ROBIN":
        del cluster["lb_policy"]  # the enum's zero, which proto-JSON leaves out


def _slow_start(cluster: Json, settings: LoadBalancerSettings, config: str) -> None:
    warmup = settings.warmup
    if warmup is not None:
        percent = 10.0 if warmup.minimum_percent is None else warmup.minimum_percent
        cluster[config] = {
            "slow_start_config": {
                **({"slow_start_window": format_duration(warmup.duration)} if warmup.duration is not None else {}),
                # istiod's runtime key is as odd as that.
                "aggression": {"default_value": 1.0 if warmup.aggression is None else warmup.aggression, "runtime_key": "("},
                "min_weight_percent": {"value": percent} if percent else {},
            }
        }
    elif settings.warmup_duration_secs is not None:
        cluster[config] = {"slow_start_config": {"slow_start_window": format_duration(settings.warmup_duration_secs)}}


def _hashing(cluster: Json, hashing: ConsistentHashLB) -> None:
    """A hash's own configuration takes the place of any other; where it has none, one for a slow start stays (and means nothing)."""
    if hashing.maglev is not None:
        cluster["lb_policy"] = "MAGLEV"
        config, size = "maglev_lb_config", {"table_size": hashing.maglev.table_size}
    elif hashing.ring_hash is not None:
        cluster["lb_policy"] = "RING_HASH"
        config, size = "ring_hash_lb_config", {"minimum_ring_size": hashing.ring_hash.minimum_ring_size}
    else:
        cluster["lb_policy"] = "RING_HASH"
        config, size = "ring_hash_lb_config", {"minimum_ring_size": hashing.minimum_ring_size or 1024}
    if all(size.values()):
        for other in SLOW_STARTING.values():
            cluster.pop(other, None)
        cluster[config] = {name: str(number) for name, number in size.items()}


def _connection_pool(cluster: Json, pool: ConnectionPoolSettings | None) -> None:
    if pool is None:
        return
    threshold = cluster["circuit_breakers"]["thresholds"][0]
    common: Json = _tcp_settings(cluster, pool.tcp) if pool.tcp is not None else {}
    if pool.http is not None:
        for field, key in (
            ("http1_max_pending_requests", "max_pending_requests"),
            ("http2_max_requests", "max_requests"),
            ("max_retries", "max_retries"),
        ):
            if getattr(pool.http, field):
                threshold[key] = getattr(pool.http, field)
        if pool.http.idle_timeout is not None:
            common["idle_timeout"] = format_duration(pool.http.idle_timeout)
        if pool.http.max_requests_per_connection:
            common["max_requests_per_connection"] = pool.http.max_requests_per_connection
    if common or (pool.http is not None and (pool.http.use_client_protocol or _http2(pool.http))):
        _http_options(cluster, common, pool)


def _retry_budget(cluster: Json, budget: RetryBudget | None) -> None:
    if budget is None:
        return
    out: Json = {
        "budget_percent": {"value": budget.percent} if budget.percent else {} if budget.percent == 0 else {"value": 20},
        "min_retry_concurrency": budget.min_retry_concurrency or 3,
    }
    if budget.budget_interval is not None:
        out["budget_interval"] = format_duration(budget.budget_interval)
    cluster["circuit_breakers"]["thresholds"][0]["retry_budget"] = out


def _tcp_settings(cluster: Json, tcp: TCPSettings) -> Json:
    """Gives its part of the cluster's common_http_protocol_options."""
    common: Json = {}
    if tcp.max_connections:
        cluster["circuit_breakers"]["thresholds"][0]["max_connections"] = tcp.max_connections
    if tcp.connect_timeout is not None:
        cluster["connect_timeout"] = format_duration(tcp.connect_timeout)
    if tcp.tcp_keepalive is not None:
        keepalive = tcp.tcp_keepalive
        cluster["upstream_connection_options"] = {"tcp_keepalive": _keepalive(keepalive.probes, keepalive.time, keepalive.interval)}
    if tcp.idle_timeout is not None:
        common["idle_timeout"] = format_duration(tcp.idle_timeout)
    if tcp.max_connection_duration is not None:
        common["max_connection_duration"] = format_duration(tcp.max_connection_duration)
    return common


def _keepalive(probes: int, time: float | None, interval: float | None) -> Json:
    out: Json = {}
    if probes:
        out["keepalive_probes"] = probes
    if time:
        out["keepalive_time"] = int(time)
    if interval:
        out["keepalive_interval"] = int(interval)
    return out


def _http2(http: HTTPSettings) -> Json:
    """What a cluster that speaks HTTP/2 is told."""
    out: Json = {}
    if http.max_concurrent_streams:
        out["max_concurrent_streams"] = http.max_concurrent_streams
    keepalive = http.http2_keep_alive
    if keepalive is not None:
        times = {"interval": keepalive.interval, "timeout": keepalive.timeout}
        out["connection_keepalive"] = {name: format_duration(time) for name, time in times.items() if time is not None}
    return out


def _http_options(cluster: Json, common: Json, pool: ConnectionPoolSettings) -> None:
    options = _options(cluster)
    http2 = _http2(pool.http) if pool.http is not None else {}
    if common or http2:
        options["common_http_protocol_options"] = common
    if http2 and "http2_protocol_options" in options.get("explicit_http_config", {}):
        options["explicit_http_config"] = {"http2_protocol_options": http2}
    if pool.http is not None and pool.http.use_client_protocol:
        options.pop("explicit_http_config", None)
        options.update(DOWNSTREAM_PROTOCOL)
    elif "explicit_http_config" not in options and "use_downstream_protocol_config" not in options:
        options["explicit_http_config"] = {"http_protocol_options": {}}


def _outlier(cluster: Json, outlier: OutlierDetection | None) -> None:
    if outlier is None:
        return
    out: Json = {"enforcing_success_rate": 0}
    five = outlier.consecutive_5xx_errors
    if five is not None:
        out["consecutive_5xx"] = five
        out["enforcing_consecutive_5xx"] = 100 if five else 0
    gateway = outlier.consecutive_gateway_errors
    if gateway is not None:
        out["consecutive_gateway_failure"] = gateway
        out["enforcing_consecutive_gateway_failure"] = 100 if gateway else 0
    if outlier.interval is not None:
        out["interval"] = format_duration(outlier.interval)
    if outlier.base_ejection_time is not None:
        out["base_ejection_time"] = format_duration(outlier.base_ejection_time)
    if outlier.max_ejection_percent:
        out["max_ejection_percent"] = outlier.max_ejection_percent
    if outlier.split_external_local_origin_errors:
        out["split_external_local_origin_errors"] = True
        local = outlier.consecutive_local_origin_failures
        if local:
            out["consecutive_local_origin_failure"] = local
            out["enforcing_consecutive_local_origin_failure"] = 100
        out["enforcing_local_origin_success_rate"] = 0
    cluster["outlier_detection"] = out
    if outlier.min_health_percent:
        cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": outlier.min_health_percent}}


def _tls(
    world: World, cluster: Json, service: Service, port: ServicePort, subset: str, tls: ClientTLSSettings | None, *, at_gateway: bool,
    by_client: bool,
) -> None:  # fmt: skip
    """Auto mTLS without `tls`; else what the mode says. Only gateways are served Secrets: of a sidecar's rule a credentialName means no TLS."""
    if tls is not None and tls.mode == "DISABLE":
        return
    if tls is None and not _by_itself(world, service, port, by_client=by_client):
        return
    if tls is not None and tls.mode in ("SIMPLE", "MUTUAL"):
        cluster["metadata"]["filter_metadata"]["istio"]["alpn_override"] = "false"
        if tls.credential_name and not at_gateway:
            return
        sans = tls.subject_alt_names or (accounts(world, service) if isinstance(service, EntryService) else ())
        cluster["transport_socket"] = _originated(tls, sans, http2=_speaks_http2(cluster))
        if not tls.sni:
            options = _options(cluster)
            if "use_downstream_protocol_config" not in options:
                options.setdefault("explicit_http_config", {"http_protocol_options": {}})
            options["upstream_http_protocol_options"] = {"auto_sni": True}
            if not tls.subject_alt_names and not tls.insecure_skip_verify:
                options["upstream_http_protocol_options"]["auto_san_validation"] = True
        return
    sni = f"outbound_.{port.port}_.{subset}_.{service.hostname}"
    sans = list(tls.subject_alt_names) if tls is not None and tls.subject_alt_names else _service_sans(world, service)
    socket = _istio_mutual(sans, tls.sni if tls is not None and tls.sni else sni, http2=_speaks_http2(cluster))
    if tls is not None or cluster["type"] == "ORIGINAL_DST":
        cluster["transport_socket"] = socket
        return
    cluster["transport_socket_matches"] = [
        {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": socket},
        {
            "name": "tlsMode-disabled",
            "match": {},
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {"@type": RAW_BUFFER},
            },
        },
    ]


def _speaks_http2(cluster: Json) -> bool:
    """Always: not where the client's protocol is taken (useClientProtocol)."""
    return "http2_protocol_options" in cluster.get("typed_extension_protocol_options", {}).get(HTTP_OPTIONS, {}).get(
        "explicit_http_config", {}
    )


def _by_itself(world: World, service: Service, port: ServicePort, *, by_client: bool) -> bool:
    """Whether it is spoken to in mTLS with no DestinationRule that says so.

    Where the client chooses the endpoint, all of them have to take it (istiod's BestEffortInferServiceMTLSMode).
    """
    if namespace_mode(world, service.namespace) == "DISABLE":
        return False
    if isinstance(service, EntryService):
        as_addressed = by_client or service.entry.resolution == "NONE"
        return not service.is_external and (not as_addressed or all_have_sidecars(world, service, port))
    workloads = world.workloads_of(service)
    return not by_client or (bool(workloads) and all(has_sidecar(one) for one in workloads))


def _service_sans(world: World, service: Service) -> list[str]:
    if isinstance(service, EntryService):
        return accounts(world, service)
    return sorted({workload.spiffe_id for workload in world.workloads_of(service)})


def _istio_mutual(sans: list[str], sni: str, *, http2: bool) -> Json:
    validation: Json = {"validation_context_sds_secret_config": secret("ROOTCA")}
    validation["default_validation_context"] = {"match_subject_alt_names": [{"exact": san} for san in sans]} if sans else {}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": TLS_PARAMS,
                "tls_certificate_sds_secret_configs": [secret("default")],
                "combined_validation_context": validation,
                "alpn_protocols": ["istio-peer-exchange", "istio", *(["h2"] if http2 else [])],
            },
            "sni": sni,
        },
    }


def _originated(tls: ClientTLSSettings, names: Sequence[str], *, http2: bool) -> Json:
    """SIMPLE and MUTUAL: TLS to a server outside the mesh; the system's roots unless there are others or insecureSkipVerify."""
    common: Json = {"tls_params": TLS_PARAMS}
    if tls.mode == "MUTUAL":
        named = file_secret(f"file-cert:{tls.client_certificate}~{tls.private_key}")
        common["tls_certificate_sds_secret_configs"] = [credential(tls.credential_name) if tls.credential_name else named]
    if tls.insecure_skip_verify:
        common["validation_context"] = {}
    else:
        sans = [{"exact": san} for san in names]
        common["combined_validation_context"] = {
            "default_validation_context": {"match_subject_alt_names": sans} if sans else {},
            "validation_context_sds_secret_config": credential(f"{tls.credential_name}{CA_SUFFIX}")
            if tls.credential_name
            else file_secret(f"file-root:{tls.ca_certificates or 'system'}"),
        }
    if http2:
        common["alpn_protocols"] = ["h2"]
    config: Json = {"@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common}
    if tls.sni:
        config["sni"] = tls.sni
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def passthrough(settings: MeshSettings, *, inbound: bool = False) -> Json:
    name = "InboundPassthroughCluster" if inbound else "PassthroughCluster"
    options = {"@type": TYPE + HTTP_OPTIONS, "common_http_protocol_options": {"idle_timeout": "300s"}, **DOWNSTREAM_PROTOCOL}
    cluster: Json = {
        "name": name,
        "alt_stat_name": "PassthroughCluster;",
        "type": "ORIGINAL_DST",
        "connect_timeout": settings.connect_timeout,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [_thresholds()]},
        "typed_extension_protocol_options": {HTTP_OPTIONS: options},
    }
    if inbound:
        cluster["upstream_bind_config"] = {"source_address": {"address": "127.0.0.6", "port_value": 0}}
    return cluster


def black_hole(settings: MeshSettings, cut_off: Mapping[str, str]) -> Json:
    """`cut_off`: the addresses that partitions keep this proxy from, with the fault of each; our own sidecar reads them."""
    cluster: Json = {
        "name": "BlackHoleCluster",
        "alt_stat_name": "BlackHoleCluster;",
        "type": "STATIC",
        "connect_timeout": settings.connect_timeout,
    }
    if cut_off:
        cluster["metadata"] = {"filter_metadata": {"devmesh": {"partition": dict(cut_off)}}}
    return cluster


def inbound(world: World, service: Service, port: ServicePort) -> Json:
    name = f"inbound|{port.target_port}||"
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "ORIGINAL_DST",
        "connect_timeout": world.settings.connect_timeout,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [_thresholds()]},
        "cleanup_interval": "9223372035s",
        "upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}},
        "common_lb_config": {},
    }
    istio: Json = {"services": [service_metadata(service)]}
    source: Json = {}
    _protocol(cluster, port)
    rule = rule_for(world, service, Client(service.namespace))
    if rule is not None and rule.spec.traffic_policy is not None:
        istio["config"] = _config(rule.resource)
        source = said_at(rule.sources[""])
        policy = policy_for(rule.spec.traffic_policy, port.port)
        _connection_pool(cluster, policy.connection_pool)
        _retry_budget(cluster, policy.retry_budget)
    if not (isinstance(service, EntryService) and service.is_external):
        cluster["metadata"] = {"filter_metadata": {"istio": istio, **source}}
    return cluster


def service_metadata(service: Service) -> Json:
    return {"host": service.hostname, "name": service.name, "namespace": service.namespace}


def _config(resource: Resource) -> str:
    return config_path("networking.istio.io", "v1", resource.key.namespace, "destination-rule", resource.key.name)
