from ipaddress import IPv4Network

import pytest

from devmesh.sidecar.config import FilterChainMatch, TcpProxy, WeightedCluster
from tests.sidecar.snapshots import ROUTER, http_chain, listener, parsed, parsed_manager, refusal

TCP = "envoy.filters.network.tcp_proxy"


def named(*names):
    return [*({"name": name, "typed_config": {}} for name in names), ROUTER]


@pytest.mark.parametrize(
    ("fields", "field", "expected", "why"),
    [
        ({}, "stream_idle_timeout", 300.0, "Envoy's default"),
        ({"stream_idle_timeout": "0s"}, "stream_idle_timeout", None, "Istio switches it off"),
        ({}, "idle_timeout", 3600.0, "an hour without a request"),
        ({"common_http_protocol_options": {"idle_timeout": "5s"}}, "idle_timeout", 5.0, "or what is said"),
        ({"request_timeout": "1s"}, "request_timeout", 1.0, "how long a request may take to arrive"),
        ({"max_request_headers_kb": 96}, "max_request_headers_kb", 96, "more than 60 KiB of headers"),
        ({}, "server_name", b"envoy", "Envoy's name"),
        ({"server_name": "istio-envoy"}, "server_name", b"istio-envoy", "Istio's inbound name"),
        ({"upgrade_configs": [{"upgrade_type": "websocket"}]}, "upgrades", frozenset({"websocket"}), "as Istio allows them"),
        ({"upgrade_configs": [{"upgrade_type": "a", "enabled": False}]}, "upgrades", frozenset(), "unless switched off"),
        ({"normalize_path": True}, "normalize_path", True, "as Istio sets it"),
        ({"access_log": [{"name": "x"}]}, "access_log", True, "whatever its format: ours comes with the bootstrap"),
        ({}, "tracing", False, "no tracing unless it is asked for"),
        ({"tracing": {"random_sampling": {"value": 1}}}, "sampling", 1.0, "Istio's percent"),
        ({"tracing": {"random_sampling": {}}}, "sampling", 0.0, "an empty Percent is 0"),
        ({"tracing": {}}, "sampling", 100.0, "no Percent is 100"),
        (
            {"tracing": {"random_sampling": {"value": 50}, "overall_sampling": {"value": 10}}},
            "sampling",
            10.0,
            "the overall share is a ceiling",
        ),
        ({"http_filters": named("envoy.filters.http.cors")}, "filters", ("envoy.filters.http.cors", ROUTER["name"]), "those we run"),
        (
            {"http_filters": named("istio.stats", "envoy.filters.http.grpc_stats", "istio.alpn")},
            "filters",
            (ROUTER["name"],),
            "Istio's own are our telemetry's work",
        ),
    ],
)
def test_an_http_manager_is_read(fields, field, expected, why):
    assert getattr(parsed_manager(**fields), field) == expected, why


def test_the_filters_own_fault_is_under_every_route():
    fault = {"name": "envoy.filters.http.fault", "typed_config": {"abort": {"http_status": 500, "percentage": {"numerator": 100}}}}
    assert parsed_manager(http_filters=[fault, ROUTER]).fault.abort_status == 500
    assert parsed_manager(http_filters=[{**fault, "typed_config": {}}, ROUTER]).fault is None


def test_a_filter_chain_is_read():
    match = {
        "destination_port": 9080,
        "transport_protocol": "tls",
        "application_protocols": ["istio", "h2"],
        "server_names": ["a.x"],
        "prefix_ranges": [{"address_prefix": "0.0.0.0", "prefix_len": 0}],
    }
    socket = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"require_client_certificate": True, "common_tls_context": {"alpn_protocols": ["h2"]}},
    }
    chain = parsed(listeners=[listener({**http_chain(), "filter_chain_match": match, "transport_socket": socket})]).listeners["l"].chains[0]
    assert chain.match == FilterChainMatch(9080, (IPv4Network("0.0.0.0/0"),), ("a.x",), "tls", frozenset({"istio", "h2"}))
    assert chain.tls.require_client_certificate
    assert chain.tls.alpn == (b"h2",)


@pytest.mark.parametrize(
    ("config", "clusters", "why"),
    [
        ({"stat_prefix": "s", "cluster": "c"}, (WeightedCluster("c", 1),), "one cluster"),
        (
            {"stat_prefix": "s", "weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]}},
            (WeightedCluster("a", 1), WeightedCluster("b", 2)),
            "several",
        ),
    ],
)
def test_a_tcp_chain_is_read(config, clusters, why):
    network = parsed(listeners=[listener({"filters": [{"name": TCP, "typed_config": config}]})]).listeners["l"].chains[0].network
    assert isinstance(network, TcpProxy)
    assert network.clusters == clusters, why
    assert network.total_weight == sum(cluster.weight for cluster in clusters)


def test_a_listener_is_read():
    found = parsed(
        listeners=[
            listener(
                bind_to_port=False,
                traffic_direction="INBOUND",
                listener_filters=[{"name": "envoy.filters.listener.tls_inspector"}],
                listener_filters_timeout="0s",
                continue_on_listener_filters_timeout=True,
                default_filter_chain=http_chain(),
            )
        ]
    ).listeners["l"]
    assert (found.address, found.port, found.bind_to_port, found.traffic_direction) == ("0.0.0.0", 15001, False, "INBOUND")
    assert (found.inspect_tls, found.inspect_http, found.inspector_timeout, found.continue_on_inspector_timeout) == (True, False, 0.0, True)
    assert found.default_chain is not None


RANGES = [{"destination_port_range": {"start": 9080, "end": 9081}}, {"destination_port_range": {"start": 15006, "end": 15007}}]


@pytest.mark.parametrize(
    ("tls_off", "http_off", "port", "expected", "why"),
    [
        (None, None, 9080, True, "both look at every port"),
        (RANGES[0], RANGES[0], 9080, False, "both are switched off here"),
        (RANGES[0], RANGES[0], 9081, True, "and not there"),
        (RANGES[1], {"or_match": {"rules": RANGES}}, 9080, True, "one that looks is enough"),
        ({"any_match": True}, {"or_match": {"rules": RANGES}}, 15006, False, "Istio's several ranges"),
        ({"not_match": RANGES[0]}, {"any_match": True}, 9080, True, "on here only"),
        ({"not_match": RANGES[0]}, {"any_match": True}, 9081, False, "and nowhere else"),
        ({"not_match": {"or_match": {"rules": RANGES}}}, {"any_match": True}, 15006, True, "on at several"),
        ({"not_match": {"or_match": {"rules": RANGES}}}, {"any_match": True}, 1, False, "but not before them"),
    ],
)
def test_inspectors_may_be_switched_off_for_ports(tls_off, http_off, port, expected, why):
    filters = [
        {"name": f"envoy.filters.listener.{name}", **({"filter_disabled": off} if off else {})}
        for name, off in (("tls_inspector", tls_off), ("http_inspector", http_off))
    ]
    assert parsed(listeners=[listener(listener_filters=filters)]).listeners["l"].inspects(port) is expected, why


def test_without_inspectors_nothing_is_inspected():
    assert not parsed(listeners=[listener()]).listeners["l"].inspects(9080)


@pytest.mark.parametrize(
    ("listeners", "message", "why"),
    [
        ([listener(http_chain(http_filters=named("envoy.filters.http.rbac")))], "HTTP filter envoy.filters.http.rbac", "who may call"),
        ([listener(http_chain(http_filters=named("envoy.filters.http.jwt_authn")))], "envoy.filters.http.jwt_authn", "whose token"),
        ([listener(http_chain(http_filters=named("envoy.filters.http.ext_authz")))], "envoy.filters.http.ext_authz", "who decides"),
        ([listener(http_chain(http_filters=named("envoy.filters.http.local_ratelimit")))], "local_ratelimit", "how often"),
        ([listener(http_chain(http_filters=named("envoy.filters.http.lua")))], "envoy.filters.http.lua", "anything unknown"),
        ([listener(http_chain(http_filters=[]))], "the last HTTP filter must be the router", "no router"),
        (
            [listener({"filters": [{"name": "envoy.filters.network.rbac", "typed_config": {}}]})],
            "network filter envoy.filters.network.rbac",
            "who may connect",
        ),
        ([listener({"filters": [{"name": "istio.stats"}]})], "without a terminal filter", "a chain that ends nowhere"),
        ([listener(http_chain(xff_num_trusted_hops=1))], "http_connection_manager.xff_num_trusted_hops", "whom to believe"),
        ([listener(http_chain(local_reply_config={"mappers": []}))], "http_connection_manager.local_reply_config", "other replies"),
        (
            [listener({**http_chain(), "filter_chain_match": {"source_prefix_ranges": [{}]}})],
            "filter_chain_match.source_prefix_ranges",
            "a chain for some callers would be everybody's",
        ),
        (
            [listener({**http_chain(), "filter_chain_match": {"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 33}]}})],
            "filter_chain_match.prefix_ranges",
            "a chain for some addresses would be everybody's",
        ),
        (
            [listener(listener_filters=[{"name": "envoy.filters.listener.proxy_protocol"}])],
            "listener filter proxy_protocol",
            "bytes in front of the request",
        ),
        (
            [listener(listener_filters=[{"name": "tls_inspector", "filter_disabled": {"and_match": {}}}])],
            "listener filter predicate ['and_match']",
            "a condition that would be forgotten",
        ),
        (
            [listener({**http_chain(), "transport_socket": {"name": "envoy.transport_sockets.quic"}})],
            "transport socket envoy.transport_sockets.quic",
            "another transport",
        ),
        (
            [
                listener(
                    {"filters": [{"name": TCP, "typed_config": {"stat_prefix": "s", "cluster": "c", "on_demand": {"odcds_config": {}}}}]}
                )
            ],
            "tcp_proxy.on_demand",
            "clusters that are asked for",
        ),
    ],
)
def test_what_would_be_half_understood_is_refused(listeners, message, why):
    said = refusal(listeners=listeners)
    assert said.startswith("l: "), why
    assert message in said, why
