import pytest

from devmesh.sidecar.config import CircuitBreakers, Endpoint, OutlierDetection
from tests.sidecar.snapshots import cluster, parsed, refusal

HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
SDS = {"tls_certificate_sds_secret_configs": [{"name": "default"}]}


def tls(checks=None, **context):
    combined = {"validation_context_sds_secret_config": {"name": "ROOTCA"}, "default_validation_context": checks or {}}
    common = {**SDS, "combined_validation_context": combined, **context.pop("common", {})}
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"common_tls_context": common, **context}}


def one(**fields):
    return parsed(clusters=[cluster("c", (("10.0.0.1", 80),), **fields)]).clusters["c"]


@pytest.mark.parametrize(
    ("fields", "field", "expected", "why"),
    [
        ({}, "lb_policy", "ROUND_ROBIN", "Envoy's default"),
        ({"lb_policy": "LEAST_REQUEST"}, "lb_policy", "LEAST_REQUEST", "Istio's"),
        ({"least_request_lb_config": {"choice_count": 4}}, "least_request_choices", 4, "more choices"),
        ({"connect_timeout": "10s"}, "connect_timeout", 10.0, "Istio's"),
        ({}, "connect_timeout", 5.0, "Envoy's default"),
        ({}, "panic_threshold", 50.0, "Envoy's default"),
        ({"common_lb_config": {"healthy_panic_threshold": {}}}, "panic_threshold", 0.0, "Istio's empty Percent switches panic off"),
        ({"common_lb_config": {"healthy_panic_threshold": {"value": 20}}}, "panic_threshold", 20.0, "a threshold"),
        ({"ring_hash_lb_config": {"minimum_ring_size": "2048"}}, "ring_hash", (2048, 8388608), "an int64 is a string"),
        ({"maglev_lb_config": {"table_size": "251"}}, "maglev_table_size", 251, "here too"),
        ({"max_requests_per_connection": 1}, "max_requests_per_connection", 1, "the deprecated field"),
        (
            {"typed_extension_protocol_options": {HTTP: {"common_http_protocol_options": {"max_requests_per_connection": 3}}}},
            "max_requests_per_connection",
            3,
            "Istio's",
        ),
        (
            {"typed_extension_protocol_options": {HTTP: {"common_http_protocol_options": {"idle_timeout": "7s"}}}},
            "idle_timeout",
            7.0,
            "how long a connection may rest",
        ),
        (
            {"typed_extension_protocol_options": {HTTP: {"explicit_http_config": {"http2_protocol_options": {}}}}},
            "protocol",
            "http2",
            "HTTP/2",
        ),
        ({"typed_extension_protocol_options": {HTTP: {"use_downstream_protocol_config": {}}}}, "protocol", "downstream", "the caller's"),
        ({}, "protocol", "http1", "the default"),
        (
            {"upstream_bind_config": {"source_address": {"address": "127.0.0.6"}}},
            "bind_address",
            "127.0.0.6",
            "Istio's passthrough address",
        ),
        ({"original_dst_lb_config": {"upstream_port_override": "15006"}}, "original_dst_port", 15006, "another port"),
    ],
)
def test_a_cluster_is_read(fields, field, expected, why):
    assert getattr(one(**fields), field) == expected, why


def test_endpoints_come_with_the_assignment_of_the_clusters_name_or_service_name():
    metadata = {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}, "istio": {"workload": "w;ns"}}}
    hosts = [
        {
            "endpoint": {"address": {"socket_address": {"address": "a", "port_value": 1}}},
            "load_balancing_weight": "3",
            "metadata": metadata,
        },
        {"endpoint": {"address": {"socket_address": {"address": "b", "port_value": 2}}}, "health_status": "UNHEALTHY"},
        {"endpoint": {"address": {"socket_address": {"address": "d", "port_value": 3}}}, "health_status": "DRAINING"},
    ]
    assignment = {
        "cluster_name": "s",
        "endpoints": [{"lb_endpoints": hosts[:1]}, {"priority": 1, "lb_endpoints": hosts[1:]}],
        "policy": {"overprovisioning_factor": 100},
    }
    clusters = [{"name": "c", "type": "EDS", "eds_cluster_config": {"service_name": "s"}}, {"name": "none", "type": "EDS"}]
    found = parsed(clusters=clusters, endpoints=[assignment]).clusters
    assert found["c"].endpoints == (
        Endpoint("a", 1, 3, 0, True, "istio", (("tlsMode", "istio"),), "w;ns"),
        Endpoint("b", 2, 1, 1, False),
        Endpoint("d", 3, 1, 1, False),
    )
    assert found["c"].overprovisioning == 100
    assert found["none"].endpoints == ()


def test_circuit_breakers_are_those_of_the_default_priority():
    thresholds = [
        {"priority": "HIGH", "max_connections": 9},
        {"max_connections": 4294967295, "max_pending_requests": 1, "max_requests": 2, "max_retries": 3},
    ]
    assert one(circuit_breakers={"thresholds": thresholds}).breakers == CircuitBreakers(4294967295, 1, 2, 3)
    budget = [{"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 1}}]
    assert one(circuit_breakers={"thresholds": budget}).breakers == CircuitBreakers(retry_budget_percent=50.0, retry_budget_min=1)
    assert one(circuit_breakers={"thresholds": [{"retry_budget": {}}]}).breakers.retry_budget_percent == 20.0
    none = {"retry_budget": {"budget_percent": {}, "budget_interval": "2s"}}
    assert one(circuit_breakers={"thresholds": [none]}).breakers == CircuitBreakers(retry_budget_percent=0.0, retry_budget_interval=2.0)
    assert one().breakers == CircuitBreakers()


@pytest.mark.parametrize(
    ("fields", "expected", "why"),
    [
        ({}, OutlierDetection(), "Envoy's defaults"),
        (
            {
                "consecutive_5xx": 1,
                "interval": "1s",
                "base_ejection_time": "180s",
                "max_ejection_percent": 100,
                "enforcing_consecutive_gateway_failure": 0,
            },
            OutlierDetection(consecutive_5xx=1, interval=1.0, base_ejection_time=180.0, max_ejection_percent=100),
            "Istio's task",
        ),
        (
            {"base_ejection_time": "400s"},
            OutlierDetection(base_ejection_time=400.0, max_ejection_time=400.0),
            "never longer than the longest",
        ),
        ({"split_external_local_origin_errors": True}, OutlierDetection(split_local_origin=True), "local errors apart"),
        ({"always_eject_one_host": True}, OutlierDetection(always_eject_one=True), "one at least"),
    ],
)
def test_outlier_detection_is_read(fields, expected, why):
    assert one(outlier_detection=fields).outlier == expected, why
    assert one().outlier is None


def test_the_transport_of_an_endpoint_is_chosen_by_its_metadata():
    matches = [
        {
            "name": "tlsMode-istio",
            "match": {"tlsMode": "istio"},
            "transport_socket": tls({"match_subject_alt_names": [{"exact": "spiffe://x"}]}, sni="s"),
        },
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "envoy.transport_sockets.raw_buffer"}},
    ]
    first, second = one(transport_socket_matches=matches).transports
    assert (first.match, first.tls.sans, first.tls.secret, first.tls.validation, first.tls.sni) == (
        (("tlsMode", "istio"),),
        (("exact", "spiffe://x"),),
        "default",
        "ROOTCA",
        "s",
    )
    assert (second.match, second.tls) == ((), None)


@pytest.mark.parametrize(
    ("fields", "message", "why"),
    [
        ({"type": "LOGICAL_X"}, "cluster type LOGICAL_X", "an unknown kind"),
        ({"lb_policy": "CLUSTER_X"}, "lb_policy CLUSTER_X", "an unknown policy"),
        ({"load_balancing_policy": {"policies": [{}]}}, "load_balancing_policy", "a policy that would be forgotten"),
        ({"health_checks": [{}]}, "health_checks", "checks that nobody makes"),
        ({"ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}}, "hash function MURMUR_HASH_2", "another ring"),
        (
            {"transport_socket": tls({"match_subject_alt_names": [{"safe_regex": {"regex": ".*"}}]})},
            "subject alternative name matcher ['safe_regex']",
            "with the name left out every peer would pass",
        ),
        (
            {"transport_socket": tls({"match_subject_alt_names": [{"exact": "a", "ignore_case": True}]})},
            "subject alternative name: ignore_case",
            "a looser comparison",
        ),
        ({"transport_socket": tls({"crl": {"filename": "f"}})}, "validation_context.crl", "revocations that nobody looks at"),
        (
            {"transport_socket": tls(common={"tls_certificates": [{}]})},
            "common_tls_context.tls_certificates",
            "a certificate other than the workload's",
        ),
        (
            {"transport_socket": {"name": "envoy.transport_sockets.starttls"}},
            "transport socket envoy.transport_sockets.starttls",
            "an unknown one",
        ),
    ],
)
def test_what_would_be_half_understood_is_refused(fields, message, why):
    said = refusal(clusters=[cluster("c", **fields)])
    assert said.startswith("c: "), why
    assert message in said, why


def test_weights_between_localities_are_refused():
    groups = [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": a, "port_value": 1}}}}]} for a in ("x", "y")]
    weighted = {"name": "c", "load_assignment": {"endpoints": groups}, "common_lb_config": {"locality_weighted_lb_config": {}}}
    assert "weights between localities" in refusal(clusters=[weighted])
    assert not refusal(clusters=[{**weighted, "load_assignment": {"endpoints": groups[:1]}}])
