"""Who a cluster reaches."""

from dataclasses import replace

from devmesh.compiler.security import takes_mtls
from tests.compiler.worlds import compiled, destination_rule, peer_authentication, world

API_V1 = world().topology.workload("api-v1")

API = "outbound|8000||api.default.svc.cluster.local"


def hosts(*yaml, cluster=API, **more):
    localities = compiled("web-v1", *yaml, **more)["endpoints"][cluster].get("endpoints", [])
    return [host for locality in localities for host in locality["lb_endpoints"]]


def addresses(*yaml, **more):
    return [host["endpoint"]["address"]["socket_address"]["address"] for host in hosts(*yaml, **more)]


def test_only_ready_workloads_are_endpoints():
    assert addresses() == ["10.0.0.2", "10.0.0.3"]
    assert addresses(endpoints=["api-v2"]) == ["10.0.0.3"]
    assert addresses(endpoints=[]) == []


def test_a_subset_has_the_workloads_of_its_labels():
    rule = destination_rule("{host: api, subsets: [{name: new, labels: {version: v2}}]}")
    assert addresses(rule, cluster="outbound|8000|new|api.default.svc.cluster.local") == ["10.0.0.3"]


def mtls(host):
    return "envoy.transport_socket_match" in host["metadata"]["filter_metadata"]


def test_mtls_is_offered_unless_the_workload_or_the_rule_declines():
    assert all(mtls(host) for host in hosts())
    assert not any(mtls(host) for host in hosts(peer_authentication("{mtls: {mode: DISABLE}}")))
    assert not any(mtls(host) for host in hosts(destination_rule("{host: api, trafficPolicy: {tls: {mode: DISABLE}}}")))


def test_a_subset_may_decline_mtls_alone():
    rule = destination_rule("{host: api, subsets: [{name: old, labels: {version: v1}, trafficPolicy: {tls: {mode: DISABLE}}}]}")
    assert all(mtls(host) for host in hosts(rule))
    assert not any(mtls(host) for host in hosts(rule, cluster="outbound|8000|old|api.default.svc.cluster.local"))


def test_a_workload_whose_label_says_so_is_called_in_plain_text():
    without = replace(API_V1, labels={"security.istio.io/tlsMode": "disabled"})
    assert [takes_mtls(world(), one, 8000, None) for one in (API_V1, without)] == [True, False]
    assert [takes_mtls(world(), one, 8000, "ISTIO_MUTUAL") for one in (API_V1, without)] == [True, False]
    assert not takes_mtls(world(), API_V1, 8000, "SIMPLE")
