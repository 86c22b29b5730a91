import pytest

from devmesh.sidecar.config import (
    NO_EDITS,
    ConfigError,
    DirectResponseAction,
    HashPolicy,
    HeaderEdit,
    Mirror,
    RedirectAction,
    RetryPolicy,
    RouteAction,
)
from tests.sidecar.snapshots import host, parsed_route, parsed_table, refusal, route, table


@pytest.mark.parametrize(
    ("action", "field", "expected", "why"),
    [
        ({"cluster": "c"}, "timeout", 15.0, "Envoy's default"),
        ({"cluster": "c", "timeout": "0s"}, "timeout", None, "Istio's way to say no limit"),
        ({"cluster": "c", "timeout": "0.500s"}, "timeout", 0.5, "as proto-JSON writes it"),
        ({"cluster": "c", "idle_timeout": "2s"}, "idle_timeout", 2.0, "replaces the manager's"),
        ({"cluster": "c", "max_stream_duration": {"max_stream_duration": "3s"}}, "max_stream_duration", 3.0, "counted from the request on"),
        ({"cluster": "c", "max_stream_duration": {"max_stream_duration": "0s"}}, "max_stream_duration", None, "0 is no limit"),
        ({"cluster": "c", "host_rewrite_literal": "x"}, "host_rewrite", b"x", "a new authority"),
        (
            {"cluster": "c", "upgrade_configs": [{"upgrade_type": "websocket", "enabled": False}]},
            "upgrade_websocket",
            False,
            "switched off",
        ),
        ({"cluster": "c"}, "upgrade_websocket", None, "as the manager says"),
        ({"cluster": "c"}, "retry", None, "no retries unless they are asked for"),
        ({"cluster": "c", "request_mirror_policies": [{"cluster": "m"}]}, "mirrors", (Mirror("m", 1.0),), "everything is mirrored"),
        (
            {
                "cluster": "c",
                "request_mirror_policies": [
                    {"cluster": "m", "runtime_fraction": {"default_value": {"numerator": 5000, "denominator": "MILLION"}}}
                ],
            },
            "mirrors",
            (Mirror("m", 0.005),),
            "or a share of it",
        ),
    ],
)
def test_a_route_action_is_read(action, field, expected, why):
    assert getattr(parsed_route(route=action).action, field) == expected, why


@pytest.mark.parametrize(
    ("policy", "expected", "why"),
    [
        ({"retry_on": "5xx"}, RetryPolicy(frozenset({"5xx"}), 1, None, frozenset()), "one retry, 25 ms to 250 ms"),
        (
            {
                "retry_on": "connect-failure, refused-stream",
                "num_retries": 2,
                "per_try_timeout": "2s",
                "retriable_status_codes": [503],
                "retry_back_off": {"base_interval": "0.1s"},
                "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}],
                "host_selection_retry_max_attempts": "5",
            },
            RetryPolicy(frozenset({"connect-failure", "refused-stream"}), 2, 2.0, frozenset({503}), 0.1, 1.0, True, 5),
            "Istio's, with an int64 as a string; the longest wait is ten times the base",
        ),
    ],
)
def test_a_retry_policy_is_read(policy, expected, why):
    assert parsed_route(route={"cluster": "c", "retry_policy": policy}).action.retry == expected, why


def test_a_virtual_hosts_retry_policy_is_that_of_routes_without_one():
    own = {"cluster": "c", "retry_policy": {"num_retries": 7}}
    found = parsed_table(host(route(route=own), route(), retry_policy={"num_retries": 3})).virtual_hosts[0].routes
    assert [one.action.retry.num_retries for one in found] == [7, 3]


@pytest.mark.parametrize("name", [":authority", ":path", "Host"])
def test_what_a_request_is_about_is_no_header_to_edit(name):
    with pytest.raises(ConfigError, match="may not be modified"):
        parsed_route(request_headers_to_add=[{"header": {"key": name, "value": "x"}}])


def test_weighted_clusters_carry_their_own_edits():
    clusters = [
        {"name": "a", "weight": 1, "request_headers_to_remove": ["X-A"], "host_rewrite_literal": "h"},
        {"name": "b", "weight": "3"},
    ]
    action = parsed_route(route={"weighted_clusters": {"clusters": clusters}}).action
    assert isinstance(action, RouteAction)
    assert [(c.name, c.weight, c.edits.request_remove, c.host_rewrite) for c in action.clusters] == [
        ("a", 1, (b"x-a",), b"h"),
        ("b", 3, (), None),
    ]
    assert action.total_weight == 4


@pytest.mark.parametrize(
    ("policy", "expected", "why"),
    [
        ({"header": {"header_name": "X-User"}}, HashPolicy("header", b"x-user"), "a header"),
        ({"connection_properties": {"source_ip": True}, "terminal": True}, HashPolicy("source_ip", b"", terminal=True), "the caller"),
        ({"query_parameter": {"name": "Q"}}, HashPolicy("query", b"Q"), "a parameter, whose name has a case"),
        ({"cookie": {"name": "u", "ttl": "60s", "path": "/"}}, HashPolicy("cookie", b"u", 60.0, b"/"), "a cookie that is made"),
        ({"cookie": {"name": "u"}}, HashPolicy("cookie", b"u", None), "a cookie that is only read"),
        (
            {"cookie": {"name": "u", "ttl": "0s", "attributes": [{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]}},
            HashPolicy("cookie", b"u", 0.0, cookie_attributes=b"; SameSite=Strict; Secure"),
            "a session cookie with attributes",
        ),
    ],
)
def test_a_hash_policy_is_read(policy, expected, why):
    assert parsed_route(route={"cluster": "c", "hash_policy": [policy]}).action.hash_policies == (expected,), why


def test_redirects_and_direct_responses_are_read():
    assert parsed_route(redirect={"host_redirect": "h", "port_redirect": "8443", "response_code": "FOUND"}).action == RedirectAction(
        302, host=b"h", port=8443
    )
    assert parsed_route(redirect={"https_redirect": True, "strip_query": True}).action == RedirectAction(301, https=True, strip_query=True)
    assert parsed_route(direct_response={"status": 418, "body": {"inline_string": "tea"}}).action == DirectResponseAction(418, b"tea")
    assert parsed_route(direct_response={"status": 200, "body": {"inline_bytes": "dGVh"}}).action == DirectResponseAction(200, b"tea")


def test_header_edits_are_read():
    edits = parsed_route(
        request_headers_to_add=[
            {"header": {"key": "X-A", "value": "%REQ(X-B)%"}},
            {"header": {"key": "x-b", "value": "1"}, "append": False},
            {"header": {"key": "x-c"}, "append_action": "ADD_IF_ABSENT", "keep_empty_value": True},
        ],
        response_headers_to_remove=["X-Gone"],
    ).edits
    assert edits.request_add == (
        HeaderEdit(b"x-a", b"%REQ(X-B)%", "APPEND_IF_EXISTS_OR_ADD"),
        HeaderEdit(b"x-b", b"1", "OVERWRITE_IF_EXISTS_OR_ADD"),
        HeaderEdit(b"x-c", b"", "ADD_IF_ABSENT", keep_empty=True),
    )
    assert edits.response_remove == (b"x-gone",)


def test_edits_of_what_frames_a_message_or_a_connection_are_passed_over():
    names = ("Content-Length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "x")
    add = [{"header": {"key": name, "value": "1"}} for name in names]
    edits = parsed_route(
        request_headers_to_add=add, request_headers_to_remove=names, response_headers_to_add=add, response_headers_to_remove=names
    ).edits
    hops = (b"connection", b"keep-alive", b"proxy-connection")
    assert tuple(one.name for one in edits.request_add) == (*hops, b"x"), "a request's to the app are the route's"
    assert edits.request_remove == edits.response_remove == (*hops, b"x")
    assert [one.name for one in edits.response_add] == [b"x"]


def test_no_edits_are_one_value():
    found = parsed_table(host(route()))
    assert found.edits is NO_EDITS
    assert found.virtual_hosts[0].edits is NO_EDITS
    assert found.virtual_hosts[0].routes[0].edits is NO_EDITS


FAULT, CORS = "envoy.filters.http.fault", "envoy.filters.http.cors"


@pytest.mark.parametrize(
    ("percentage", "share", "why"),
    [
        ({"numerator": 50}, 0.5, "of a hundred"),
        ({"numerator": 500, "denominator": "TEN_THOUSAND"}, 0.05, "of ten thousand"),
        ({"numerator": 123456, "denominator": "MILLION"}, 0.123456, "Istio's doubles are millionths"),
        ({"numerator": 200}, 1.0, "never more than all"),
        ({}, 0.0, "an empty percentage is 0"),
        (None, 0.0, "so is none"),
    ],
)
def test_a_faults_share_is_read(percentage, share, why):
    abort = {"http_status": "503", **({"percentage": percentage} if percentage is not None else {})}
    found = parsed_route(
        typed_per_filter_config={FAULT: {"abort": abort, "delay": {"fixed_delay": "7s", "percentage": {"numerator": 1}}}}
    ).fault
    assert (found.abort_fraction, found.abort_status, found.delay, found.delay_fraction) == (share, 503, 7.0, 0.01), why


def test_a_fault_says_which_devmesh_fault_it_is():
    metadata = {"filter_metadata": {"devmesh": {"fault": "f1"}, "istio": {"config": "/apis/x"}}}
    found = parsed_route(typed_per_filter_config={FAULT: {"abort": {"grpc_status": 14}}}, metadata=metadata, decorator={"operation": "op"})
    assert (found.fault.fault_id, found.fault.abort_grpc_status, found.origin, found.operation) == ("f1", 14, "/apis/x", "op")


@pytest.mark.parametrize(
    ("where", "status", "why"),
    [
        ((), None, "nobody asked for a fault"),
        (("table",), 501, "a table's fault is that of all its routes"),
        (("table", "host"), 502, "a virtual host's comes before it"),
        (("table", "host", "route"), 503, "a route's before both"),
    ],
)
def test_the_most_specific_filter_configuration_counts(where, status, why):
    at = {
        key: {"typed_per_filter_config": {FAULT: {"abort": {"http_status": code}}}} if key in where else {}
        for key, code in (("table", 501), ("host", 502), ("route", 503))
    }
    found = parsed_table(host(route(**at["route"]), **at["host"]), **at["table"]).virtual_hosts[0].routes[0].fault
    assert (found.abort_status if found else None) == status, why


def test_cors_is_on_only_when_it_is_enabled():
    policy = {"allow_origin_string_match": [{"exact": "http://a"}], "allow_methods": "GET", "max_age": "5"}
    found = parsed_route(typed_per_filter_config={CORS: policy}).cors
    assert (found.allow_origin[0](b"http://a"), found.allow_methods, found.max_age, found.forward_not_matching_preflights) == (
        True,
        b"GET",
        b"5",
        True,
    )
    on = {"default_value": {"numerator": 100}}
    assert parsed_route(typed_per_filter_config={CORS: {**policy, "filter_enabled": on}}).cors is not None
    assert parsed_route(typed_per_filter_config={CORS: {**policy, "filter_enabled": {"default_value": {}}}}).cors is None


@pytest.mark.parametrize(
    ("routes", "message", "why"),
    [
        (
            [table(host(domains=("a", "b")), host(domains=("B",), name="w"))],
            "Duplicate entry of domain b",
            "two hosts cannot share a domain",
        ),
        ([table(host(domains=("*.x",)), host(domains=("*.x",), name="w"))], "Duplicate entry of domain *.x", "nor a wildcard"),
        ([table(host(), host(name="w"))], "Duplicate entry of domain *", "nor everything"),
        ([table(host(route(route={"cluster_header": "x"})))], "names no cluster", "a cluster named by the client"),
        (
            [table(host(route(route={"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}]}})))],
            "must be greater than 0",
            "no weight at all",
        ),
        ([table(host(route(non_forwarding_action={})))], "non_forwarding_action is not supported", "an action that goes nowhere"),
        ([table(host({"name": "r", "match": {"prefix": "/"}}))], "a route without an action", "no action"),
        ([table(host(route({"connect_matcher": {}})))], "route match ['connect_matcher'] is not supported", "a match that is unknown"),
        ([table(host(route({"prefix": "/", "grpc": {"x": 1}})))], "match.grpc is not supported", "a condition that would be forgotten"),
        (
            [table(host(route({"prefix": "/", "tls_context": {"presented": True}})))],
            "match.tls_context is not supported",
            "one about certificates",
        ),
        (
            [table(host(route(route={"cluster": "c", "host_rewrite_header": "x"})))],
            "route.host_rewrite_header",
            "a host named by the client",
        ),
        (
            [table(host(route(route={"cluster": "c", "internal_redirect_policy": {"x": 1}})))],
            "route.internal_redirect_policy",
            "redirects inside",
        ),
        (
            [table(host(route(route={"cluster": "c", "hash_policy": [{"filter_state": {}}]})))],
            "hash policy ['filter_state']",
            "an unknown hash",
        ),
        ([table(host(matcher={"matcher_tree": {}}))], "t/v: matcher is not supported", "a matcher tree in place of routes"),
        ([table(host(rate_limits=[{}]))], "t/v: rate_limits is not supported", "a limit that would not limit"),
        ([table(vhds={"config_source": {}})], "t: vhds is not supported", "hosts from elsewhere"),
        (
            [table(host(route(typed_per_filter_config={"envoy.filters.http.rbac": {}})))],
            "per-route configuration of envoy.filters.http.rbac is not supported",
            "who may call would be forgotten",
        ),
        (
            [table(host(typed_per_filter_config={"envoy.filters.http.rbac": {}}))],
            "envoy.filters.http.rbac is not supported",
            "at the virtual host too",
        ),
        (
            [table(host(route(typed_per_filter_config={CORS: {"@type": "x/envoy.config.route.v3.FilterConfig"}})))],
            "of envoy.filters.http.cors as FilterConfig is not supported",
            "a wrapper that may switch the filter off",
        ),
        (
            [table(host(route(typed_per_filter_config={FAULT: {"delay": {"header_delay": {}}}})))],
            "fault.header_delay is not supported",
            "a fault by header",
        ),
        (
            [table(host(route(typed_per_filter_config={FAULT: {"upstream_cluster": "x", "abort": {}}})))],
            "fault.upstream_cluster is not supported",
            "a fault for one cluster",
        ),
        (
            [table(host(route(request_headers_to_add=[{"header": {"key": "a", "value": "%CEL(x)%"}}])))],
            "header a: operator %CEL(x)% is not supported",
            "an operator that would be sent as text",
        ),
        ([table(host(route({"safe_regex": {"regex": "(?=a)"}})))], "is not RE2", "a look-ahead"),
    ],
)
def test_what_would_be_half_understood_is_refused(routes, message, why):
    assert message in refusal(routes=routes), why


def test_a_refusal_names_table_host_and_route():
    assert refusal(routes=[table(host(route(name="x", route={})))]).startswith("t/v/x: ")
