"""Which servers of which Gateways a gateway runs, and under which names; the square compares what comes of it with Istio."""

import pytest

from devmesh.compiler.gateways import by_specificity, intersection, merge_servers, target_port
from tests.compiler.worlds import document, world


def gateway(name, *servers, namespace="default"):
    listed = ", ".join(servers)
    return document("Gateway", name, f"{{selector: {{app: gate}}, servers: [{listed}]}}", namespace)


def server(number, name, protocol, hosts, tls=""):
    return f"{{port: {{number: {number}, name: {name}, protocol: {protocol}}}, hosts: [{hosts}]{tls and f', tls: {{{tls}}}'}}}"


def simple(name, hosts, number=443):
    return server(number, name, "HTTPS", hosts, "mode: SIMPLE, credentialName: c")


def merged(*yaml):
    whole = world(*yaml)
    return merge_servers(whole, whole.topology.workload("gate-v1"))


def test_every_https_server_has_a_table_of_its_own_and_plain_ones_share_their_ports():
    found = merged(
        gateway("g", simple("https-a", "a.example"), simple("https-b", "b.example")),
        gateway("h", server(80, "http", "HTTP", "a.example")),
        gateway("i", server(80, "http", "HTTP2", "b.example")),
    )
    assert list(found.tables) == ["https.443.https-a.g.default", "https.443.https-b.g.default", "http.80"]
    assert [one.gateway for one in found.tables["http.80"]] == ["default/h", "default/i"]
    assert len(list(found.servers(80))) == 1  # one filter chain serves both


@pytest.mark.parametrize(
    ("servers", "kept"),
    [
        ([simple("a", "x.example"), simple("b", "x.example")], ["a"]),
        ([simple("a", '"*/x.example"'), simple("b", '"*/X.example"')], ["a"]),
        ([server(443, "a", "HTTP", "x.example"), simple("b", "x.example")], ["a"]),
        ([server(443, "a", "TCP", '"*"'), server(443, "b", "TCP", '"*"')], ["a"]),
        ([simple("a", "x.example"), server(443, "b", "HTTP", "x.example")], ["a", "b"]),
        ([simple("a", "x.example"), simple("b", "x.example", 8443)], ["a", "b"]),
    ],
    ids=["a host twice", "in other letters", "TLS beside plain", "TCP twice", "plain after TLS", "another port"],
)
def test_what_cannot_stand_beside_the_first_server_is_left_out(servers, kept):
    found = merged(gateway("g", *servers))
    assert [one.server.port.name for port in found.chains for one in found.servers(port)] == kept


def test_a_gateway_for_other_workloads_is_not_this_ones():
    other = gateway("g", simple("a", "x.example")).replace("app: gate", "app: other")
    assert not merged(other).chains


def test_a_port_without_a_service_is_itself():
    whole = world()
    assert target_port(whole, whole.topology.workload("api-v1"), 8000) == 8000
    assert target_port(whole, whole.topology.workload("gate-v1"), 443) == 443


@pytest.mark.parametrize(
    ("hosts", "allowed", "both"),
    [
        (["*.a"], ["1.a", "2.a", "1.b"], ["1.a", "2.a"]),
        (["1.a", "1.b"], ["*.a"], ["1.a"]),
        (["1.a"], ["*"], ["1.a"]),
        (["1.a"], ["1.b"], []),
    ],
)
def test_the_more_specific_of_two_hosts_is_bound(hosts, allowed, both):
    assert intersection(hosts, allowed) == both


@pytest.mark.parametrize(("namespace", "hosts"), [("default", ["a", "b", "c"]), ("other", ["a", "d"])])
def test_a_server_says_which_namespaces_may_bind_its_hosts(namespace, hosts):
    found = merged(gateway("g", server(80, "http", "HTTP", '"*/a", ./b, default/c, other/d')))
    (one,) = found.servers(80)
    assert one.hosts_for(namespace) == hosts


def test_whole_names_come_before_wildcards_and_longer_before_shorter():
    assert sorted(["*.a", "b.a", "*.b.a", "c.b.a", "a.a"], key=by_specificity) == ["c.b.a", "a.a", "b.a", "*.b.a", "*.a"]
