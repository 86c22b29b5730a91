"""ServiceEntries: who sees them, how their endpoints are found, and under which names; the square compares the rest with Istio."""

import pytest

from devmesh.compiler.outbound import names
from tests.compiler.worlds import compiled, destination_rule, document, world

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"


def entry(spec, name="ext", namespace="default"):
    return document("ServiceEntry", name, f"{{{HTTP}, {spec}}}", namespace)


def test_registry_only_lets_the_host_of_an_entry_pass_by_its_own_route():
    hosts = compiled("web-v1", entry("hosts: [ext.example], resolution: DNS"))["routes"]["80"]["virtual_hosts"]
    assert next((one["name"], one["domains"]) for one in hosts) == ("ext.example:80", ["ext.example", "ext.example."])


@pytest.mark.parametrize(
    ("scopes", "seen"), [("['.']", []), ("[default]", ["web-v1"]), ("['*']", ["web-v1", "gate-v1"]), ("[istio-system]", ["gate-v1"])]
)
def test_an_entry_is_seen_where_it_is_exported_to(scopes, seen):
    yaml = entry(f"hosts: [ext.example], resolution: DNS, exportTo: {scopes}", namespace="other")
    assert [name for name in ("web-v1", "gate-v1") if "outbound|80||ext.example" in compiled(name, yaml)["clusters"]] == seen


def test_an_endpoint_may_have_a_port_and_a_weight_of_its_own():
    endpoints = "endpoints: [{address: 10.9.9.1, ports: {http: 8000}}, {address: 10.9.9.2, weight: 3}]"
    found = compiled("web-v1", entry(f"hosts: [ext.example], resolution: STATIC, {endpoints}"))["endpoints"]["outbound|80||ext.example"]
    hosts = found["endpoints"][0]["lb_endpoints"]
    assert [(one["endpoint"]["address"]["socket_address"], one["load_balancing_weight"]) for one in hosts] == [
        ({"address": "10.9.9.1", "port_value": 8000}, 1),
        ({"address": "10.9.9.2", "port_value": 80}, 3),
    ]


def test_no_mesh_certificate_is_shown_outside_and_a_rule_may_ask_for_tls():
    yaml = entry("hosts: [ext.example], resolution: DNS")
    plain = compiled("web-v1", yaml)["clusters"]["outbound|80||ext.example"]
    assert not plain.keys() & {"transport_socket", "transport_socket_matches"}
    rule = destination_rule("{host: ext.example, trafficPolicy: {tls: {mode: SIMPLE, sni: ext.example}}}")
    assert (
        compiled("web-v1", yaml, rule)["clusters"]["outbound|80||ext.example"]["transport_socket"]["typed_config"]["sni"] == "ext.example"
    )


def test_a_credential_of_a_rule_is_for_gateways():
    rule = destination_rule("{host: ext.example, trafficPolicy: {tls: {mode: MUTUAL, credentialName: c}}}")
    yaml = (entry("hosts: [ext.example], resolution: DNS"), rule)
    has = {name: "transport_socket" in compiled(name, *yaml)["clusters"]["outbound|80||ext.example"] for name in ("web-v1", "gate-v1")}
    assert has == {"web-v1": False, "gate-v1": True}


def test_a_name_has_the_addresses_given_or_one_made_up_that_no_service_has():
    whole = world(
        entry("hosts: [a.example], addresses: [10.7.0.1], resolution: STATIC, endpoints: [{address: 10.9.9.1}]", "a"),
        entry("hosts: [b.example], resolution: DNS", "b"),
        entry("hosts: [c.example], resolution: NONE", "c"),
        entry("hosts: ['*.d.example'], resolution: NONE", "d"),
    )
    table = names(whole, whole.topology.workload("web-v1"))["table"]
    assert table["a.example"]["ips"] == ["10.7.0.1"]
    assert table["b.example"]["ips"] == ["10.96.0.254"]
    assert not {"c.example", "*.d.example"} & table.keys()  # their addresses are the resolver's
