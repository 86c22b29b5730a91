"""HTTPRoute -> Route."""

import pytest

from devmesh.compiler.routes import retry_policy
from devmesh.config.istio_networking import HTTPRetry
from tests.compiler.worlds import compiled, destination_rule, virtual_service


def route(http, *yaml):
    text = virtual_service(f"{{hosts: [api], http: [{http}]}}")
    hosts = compiled("web-v1", text, *yaml)["routes"]["8000"]["virtual_hosts"]
    return next(one for one in hosts if one["name"].startswith("api."))["routes"][0]


@pytest.mark.parametrize(
    ("retry_on", "words", "codes"),
    [
        ("503,5xx,418", "5xx,retriable-status-codes", [503, 418]),
        ("503", ",retriable-status-codes", [503]),
        ("gateway-error", "gateway-error", None),
    ],
)
def test_numbers_in_retry_on_become_status_codes(retry_on, words, codes):
    policy = retry_policy(HTTPRetry(attempts=1, retry_on=retry_on))
    assert (policy["retry_on"], policy.get("retriable_status_codes")) == (words, codes)


def test_no_attempts_mean_no_retry_policy():
    assert "retry_policy" not in route("{retries: {attempts: 0}, route: [{destination: {host: api}}]}")["route"]


def test_a_hashed_request_may_meet_its_host_again():
    rule = destination_rule("{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}")
    action = route("{route: [{destination: {host: api}}]}", rule)["route"]
    assert action["hash_policy"] == [{"header": {"header_name": "x-user"}}]
    assert "retry_host_predicate" not in action["retry_policy"]


def test_destinations_without_weight_are_left_out():
    http = "{route: [{destination: {host: api}, weight: 100}, {destination: {host: web}, weight: 0}]}"
    assert len(route(http)["route"]["weighted_clusters"]["clusters"]) == 1


@pytest.mark.parametrize(("scheme", "port", "expected"), [("http", 80, None), ("https", 443, None), ("https", 8443, 8443)])
def test_a_redirect_does_not_name_its_schemes_own_port(scheme, port, expected):
    assert route(f"{{redirect: {{scheme: {scheme}, port: {port}}}}}")["redirect"].get("port_redirect") == expected
