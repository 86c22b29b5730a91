"""Listener, FilterChain, HttpConnectionManager and TcpProxy (config/listener/v3 and extensions) -> frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from devmesh.sidecar.config import (
    ConfigError,
    FaultPolicy,
    FilterChain,
    FilterChainMatch,
    HttpManager,
    Listener,
    RouteTable,
    TcpProxy,
    TlsContext,
    WeightedCluster,
)
from devmesh.sidecar.config_clusters import parse_tls
from devmesh.sidecar.config_common import Json, limit, optional_number, refuse, seconds
from devmesh.sidecar.config_routes import parse_fault, parse_route_table

HTTP_MANAGER = "envoy.filters.network.http_connection_manager"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
FAULT = "envoy.filters.http.fault"
ROUTER = "envoy.filters.http.router"
# grpc_stats only counts; the istio.* filters exist in Istio's Envoy build and their work is done by our telemetry and ALPN choice.
HTTP_FILTERS = frozenset({FAULT, "envoy.filters.http.cors", ROUTER})
IGNORED = ("istio.", "envoy.filters.http.grpc_stats")
LISTENER_FILTERS = frozenset({"tls_inspector", "http_inspector", "original_dst"})
CERTIFICATE_DETAILS = ("cert", "subject", "uri", "dns")
UNREAD_CHAIN_MATCHES = (
    "source_prefix_ranges", "source_ports", "source_type", "direct_source_prefix_ranges", "address_suffix",
)  # fmt: skip
UNREAD_MANAGER = (
    "scoped_routes", "local_reply_config", "strip_any_host_port", "strip_matching_host_port", "strip_trailing_host_dot", "xff_num_trusted_hops",
    "skip_xff_append", "original_ip_detection_extensions", "early_header_mutation_extensions", "internal_address_config",
)  # fmt: skip
UNREAD_TUNNEL = (
    "use_post", "headers_to_add", "propagate_response_headers", "propagate_response_trailers", "post_path", "request_id_extension",
)  # fmt: skip
UNREAD_TCP = ("metadata_match", "on_demand", "max_downstream_connection_duration_jitter_percentage")


def parse_listener(listener: Json, tables: Mapping[str, RouteTable]) -> Listener:
    name = listener["name"]
    address = listener["address"]["socket_address"]
    refuse(name, listener, ("udp_listener_config", "internal_listener", "api_listener", "connection_balance_config"))
    inspectors = {f["name"].rpartition(".")[2] for f in listener.get("listener_filters", ())}
    if inspectors - LISTENER_FILTERS:
        raise ConfigError(name, f"listener filter {min(inspectors - LISTENER_FILTERS)} is not supported")
    default = listener.get("default_filter_chain")
    chains = tuple(_chain(listener, chain, tables) for chain in listener.get("filter_chains", ()))
    return Listener(
        name=name,
        address=address["address"],
        port=int(address["port_value"]),
        chains=chains,
        default_chain=_chain(listener, default, tables) if default else None,
        bind_to_port=bool(listener.get("bind_to_port", True)),
        use_original_dst=bool(listener.get("use_original_dst")),
        traffic_direction=listener.get("traffic_direction", ""),
        inspect_tls="tls_inspector" in inspectors or any(_needs_inspection(chain) for chain in listener.get("filter_chains", ())),
        inspect_http="http_inspector" in inspectors,
        continue_on_inspector_timeout=bool(listener.get("continue_on_listener_filters_timeout")),
        inspector_timeout=seconds(listener.get("listener_filters_timeout"), 15.0) or 0.0,
        tls_uninspected=_switched_off(listener, "tls_inspector"),
        http_uninspected=_switched_off(listener, "http_inspector"),
        by_address=any(chain.match.prefix_ranges for chain in chains),
    )


def _needs_inspection(chain: Json) -> bool:
    """Envoy adds the TLS inspector by itself where a chain asks for what only it can tell (ListenerImpl::buildListenerFilters)."""
    match = chain.get("filter_chain_match", {})
    transport = match.get("transport_protocol", "")
    return transport == "tls" or (not transport and bool(match.get("server_names") or match.get("application_protocols")))


def _switched_off(listener: Json, inspector: str) -> tuple[tuple[int, int], ...]:
    found = [f["filter_disabled"] for f in listener.get("listener_filters", ()) if f["name"].endswith(inspector) and "filter_disabled" in f]
    return tuple(ports for predicate in found for ports in _ports(listener["name"], predicate))


def _ports(listener: str, predicate: Json) -> list[tuple[int, int]]:
    """A ListenerFilterChainMatchPredicate as Istio writes it: ranges, any of several, or all others."""
    if "destination_port_range" in predicate:
        ports = predicate["destination_port_range"]
        return [(int(ports.get("start", 0)), int(ports.get("end", 0)))]
    if "or_match" in predicate:
        return [ports for rule in predicate["or_match"]["rules"] for ports in _ports(listener, rule)]
    if "not_match" in predicate:
        return _others(_ports(listener, predicate["not_match"]))
    if predicate.get("any_match"):
        return [(0, 65536)]
    raise ConfigError(listener, f"listener filter predicate {sorted(predicate)} is not supported")


def _others(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ports outside of all these [start, end)."""
    out, free = [], 0
    for start, end in sorted(ranges):
        out += [(free, start)] if start > free else []
        free = max(free, end)
    return [*out, (free, 65536)] if free < 65536 else out


def _chain(owner: Json, chain: Json, tables: Mapping[str, RouteTable]) -> FilterChain:
    listener, match = owner["name"], chain.get("filter_chain_match", {})
    network, tls = _network(listener, chain["filters"], tables), _tls(listener, chain.get("transport_socket"))
    if tls is not None and isinstance(network, HttpManager) and owner.get("traffic_direction") == "OUTBOUND":
        tls = replace(tls, alpn=tuple(name for name in tls.alpn if name != b"h2"))  # a gateway reads requests, and HTTP/2 is only carried
    refuse(listener, match, UNREAD_CHAIN_MATCHES, "filter_chain_match.")
    return FilterChain(
        name=chain.get("name", ""),
        match=FilterChainMatch(
            destination_port=optional_number(match.get("destination_port")),
            prefix_ranges=tuple(_range(listener, one) for one in match.get("prefix_ranges", ())),
            server_names=tuple(match.get("server_names", ())),
            transport_protocol=match.get("transport_protocol", ""),
            application_protocols=frozenset(match.get("application_protocols", ())),
        ),
        network=network,
        tls=tls,
    )


def _range(listener: str, given: Json) -> IPv4Network | IPv6Network:
    """Bits beyond its length mean nothing (Envoy's CidrRange)."""
    try:
        return ip_network(f"{given['address_prefix']}/{given.get('prefix_len', 0)}", strict=False)
    except ValueError as error:
        raise ConfigError(listener, f"filter_chain_match.prefix_ranges: {error}") from error


def _tls(listener: str, socket: Json | None) -> TlsContext | None:
    if socket is None or socket["name"].endswith("raw_buffer"):
        return None
    if not socket["name"].endswith("transport_sockets.tls"):
        raise ConfigError(listener, f"transport socket {socket['name']} is not supported")
    tls = parse_tls(listener, socket["typed_config"])
    # Who is not asked for a certificate shows none to check.
    return tls if tls.validation is not None or tls.require_client_certificate else replace(tls, sans=())


def _network(listener: str, filters: list[Json], tables: Mapping[str, RouteTable]) -> HttpManager | TcpProxy:
    for network_filter in filters:
        name = network_filter["name"]
        if name == HTTP_MANAGER:
            return _http_manager(listener, network_filter["typed_config"], tables)
        if name == TCP_PROXY:
            return _tcp_proxy(listener, network_filter["typed_config"])
        if not name.startswith(IGNORED):
            raise ConfigError(listener, f"network filter {name} is not supported")
    raise ConfigError(listener, "a filter chain without a terminal filter")


def _tcp_proxy(listener: str, config: Json) -> TcpProxy:
    refuse(listener, config, UNREAD_TCP, "tcp_proxy.")
    if "cluster" in config:
        clusters: tuple[WeightedCluster, ...] = (WeightedCluster(config["cluster"], 1),)
    else:
        clusters = tuple(WeightedCluster(c["name"], int(c["weight"])) for c in config["weighted_clusters"]["clusters"])
    total = sum(cluster.weight for cluster in clusters)
    return TcpProxy(
        config["stat_prefix"],
        clusters,
        total,
        limit(config.get("idle_timeout"), 3600.0),
        limit(config.get("max_downstream_connection_duration"), None),
        by_source=_by_source(listener, config.get("hash_policy", ())),
        tunnel=_tunnel(listener, config.get("tunneling_config", {})),
        access_log="access_log" in config,
    )


def _tunnel(listener: str, tunnel: Json) -> str:
    refuse(listener, tunnel, UNREAD_TUNNEL, "tcp_proxy.tunneling_config.")
    hostname: str = tunnel.get("hostname", "")
    if "%" in hostname:
        raise ConfigError(listener, f"tcp_proxy.tunneling_config.hostname with a command ({hostname}) is not supported")
    return hostname


def _by_source(listener: str, policies: Sequence[Json]) -> bool:
    if any("source_ip" not in policy for policy in policies):
        raise ConfigError(listener, "tcp_proxy.hash_policy of anything but source_ip is not supported")
    return bool(policies)


def _http_manager(listener: str, manager: Json, tables: Mapping[str, RouteTable]) -> HttpManager:
    filters = tuple(f["name"] for f in manager.get("http_filters", ()) if not f["name"].startswith(IGNORED))
    for name in filters:
        if name not in HTTP_FILTERS:
            raise ConfigError(listener, f"HTTP filter {name} is not supported")
    if not filters or filters[-1] != ROUTER:
        raise ConfigError(listener, "the last HTTP filter must be the router")
    refuse(listener, manager, UNREAD_MANAGER, "http_connection_manager.")
    tracing = manager.get("tracing")
    common = manager.get("common_http_protocol_options", {})
    return HttpManager(
        stat_prefix=manager.get("stat_prefix", ""),
        route_table=_route_table(listener, manager, tables),
        filters=filters,
        fault=_filter_fault(listener, manager),
        server_name=manager.get("server_name", "envoy").encode(),
        use_remote_address=bool(manager.get("use_remote_address")),
        forward_client_cert=manager.get("forward_client_cert_details", "SANITIZE"),
        client_cert_details=tuple(one for one in CERTIFICATE_DETAILS if manager.get("set_current_client_cert_details", {}).get(one)),
        upgrades=frozenset(u["upgrade_type"].lower() for u in manager.get("upgrade_configs", ()) if u.get("enabled", True)),
        max_request_headers_kb=int(manager.get("max_request_headers_kb", 60)),
        max_headers_count=int(common.get("max_headers_count", 100)),
        stream_idle_timeout=limit(manager.get("stream_idle_timeout"), 300.0),
        request_timeout=limit(manager.get("request_timeout"), None),
        idle_timeout=limit(common.get("idle_timeout"), 3600.0),
        sampling=_sampling(tracing) if tracing is not None else 0.0,
        tracing=tracing is not None,
        access_log="access_log" in manager,
        normalize_path=bool(manager.get("normalize_path")),
        merge_slashes=bool(manager.get("merge_slashes")),
        proxy_100_continue=bool(manager.get("proxy_100_continue")),
    )


def _sampling(tracing: Json) -> float:
    """Percent; each share defaults to 100 and an empty Percent is 0 (http_connection_manager.proto, Tracing)."""
    shares = [float(tracing[key].get("value", 0.0)) for key in ("random_sampling", "overall_sampling") if key in tracing]
    return min(shares, default=100.0)


def _filter_fault(listener: str, manager: Json) -> FaultPolicy | None:
    for http_filter in manager.get("http_filters", ()):
        config = http_filter.get("typed_config", {})
        if http_filter["name"] == FAULT and ("delay" in config or "abort" in config):
            return parse_fault(listener, config)
    return None


def _route_table(listener: str, manager: Json, tables: Mapping[str, RouteTable]) -> RouteTable:
    if "route_config" in manager:
        return parse_route_table(manager["route_config"])
    name = manager["rds"]["route_config_name"]
    if name not in tables:
        raise ConfigError(listener, f"route table {name} is not in this snapshot")
    return tables[name]


def named_tables(listener: Json) -> list[str]:
    """The route tables that its chains refer to by name."""
    chains = [*listener.get("filter_chains", ()), listener.get("default_filter_chain") or {}]
    configs = [found.get("typed_config", {}) for chain in chains for found in chain.get("filters", ())]
    return [config["rds"]["route_config_name"] for config in configs if "rds" in config]
