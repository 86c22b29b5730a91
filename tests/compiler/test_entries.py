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


def hosts(compiled_endpoints, cluster):
    return [
        one["endpoint"]["address"]["socket_address"]
        for group in compiled_endpoints[cluster].get("endpoints", ())
        for one in group["lb_endpoints"]
    ]


def test_two_entries_of_one_host_give_it_the_ports_and_endpoints_of_both():
    first = entry("hosts: [ext.example], resolution: STATIC, endpoints: [{address: 10.9.9.1}]", "a")
    ports = "ports: [{number: 80, name: http, protocol: HTTP}, {number: 81, name: more, protocol: HTTP}]"
    second = document("ServiceEntry", "b", f"{{{ports}, hosts: [ext.example], resolution: STATIC, endpoints: [{{address: 10.9.9.2}}]}}")
    found = compiled("web-v1", first, second)["endpoints"]
    assert [one["address"] for one in hosts(found, "outbound|80||ext.example")] == ["10.9.9.1", "10.9.9.2"]
    assert hosts(found, "outbound|81||ext.example") == [{"address": "10.9.9.2", "port_value": 81}]


def test_of_two_namespaces_that_have_a_host_the_callers_own_comes_first():
    there = entry("hosts: [ext.example], resolution: STATIC, endpoints: [{address: 10.9.9.1}]", namespace="other")
    here = entry("hosts: [ext.example], resolution: STATIC, endpoints: [{address: 10.9.9.2}]", namespace="default")
    found = {name: hosts(compiled(name, there, here)["endpoints"], "outbound|80||ext.example") for name in ("web-v1", "gate-v1")}
    assert {name: [one["address"] for one in addresses] for name, addresses in found.items()} == {
        "web-v1": ["10.9.9.2"],
        "gate-v1": ["10.9.9.1"],
    }


SELECTS = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: %d}], location: MESH_INTERNAL, resolution: STATIC"


def test_workloads_that_an_entry_selects_are_its_endpoints_while_they_are_ready():
    yaml = document("ServiceEntry", "ext", f"{{hosts: [ext.example], {SELECTS % 8000}, workloadSelector: {{labels: {{app: api}}}}}}")
    every = compiled("web-v1", yaml)
    assert hosts(every["endpoints"], "outbound|80||ext.example") == [
        {"address": "10.0.0.2", "port_value": 8000},
        {"address": "10.0.0.3", "port_value": 8000},
    ]
    names = every["clusters"]["outbound|80||ext.example"]["transport_socket_matches"][0]["transport_socket"]["typed_config"]
    validation = names["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert validation == {"match_subject_alt_names": [{"exact": "spiffe://cluster.local/ns/default/sa/api"}]}
    some = compiled("web-v1", yaml, endpoints=["web-v1", "api-v2"])["endpoints"]
    assert [one["address"] for one in hosts(some, "outbound|80||ext.example")] == ["10.0.0.3"]


def test_a_selected_workload_takes_calls_to_the_entrys_ports():
    yaml = document("ServiceEntry", "ext", f"{{hosts: [ext.example], {SELECTS % 7070}, workloadSelector: {{labels: {{app: api}}}}}}")
    assert "inbound|7070||" in compiled("api-v1", yaml)["clusters"]
    assert "inbound|7070||" not in compiled("web-v1", yaml)["clusters"]


def test_an_endpoint_with_a_service_account_is_called_in_mtls_and_has_to_prove_it():
    spec = "location: MESH_INTERNAL, resolution: STATIC, subjectAltNames: [a.example]"
    yaml = entry(f"hosts: [ext.example], {spec}, endpoints: [{{address: 10.9.9.1, serviceAccount: b}}, {{address: 10.9.9.2}}]")
    found = compiled("web-v1", yaml)
    listed = found["endpoints"]["outbound|80||ext.example"]["endpoints"][0]["lb_endpoints"]
    assert ["envoy.transport_socket_match" in one["metadata"]["filter_metadata"] for one in listed] == [True, False]
    config = found["clusters"]["outbound|80||ext.example"]["transport_socket_matches"][0]["transport_socket"]["typed_config"]
    names = config["common_tls_context"]["combined_validation_context"]["default_validation_context"]["match_subject_alt_names"]
    assert names == [{"exact": "a.example"}, {"exact": "spiffe://cluster.local/ns/default/sa/b"}]


def test_names_of_an_entry_are_those_that_a_server_outside_must_prove_unless_the_rule_has_its_own():
    yaml = entry("hosts: [ext.example], resolution: DNS, subjectAltNames: [a.example]")
    for own, expected in (("", "a.example"), (", subjectAltNames: [b.example]", "b.example")):
        rule = destination_rule(f"{{host: ext.example, trafficPolicy: {{tls: {{mode: SIMPLE{own}}}}}}}")
        config = compiled("web-v1", yaml, rule)["clusters"]["outbound|80||ext.example"]["transport_socket"]["typed_config"]
        context = config["common_tls_context"]["combined_validation_context"]["default_validation_context"]
        assert context == {"match_subject_alt_names": [{"exact": expected}]}


def test_ranges_of_one_port_share_its_listener_and_name_no_address_for_a_resolver():
    tcp = "ports: [{number: 6000, name: tcp, protocol: TCP}], resolution: NONE"
    near = document("ServiceEntry", "near", f"{{hosts: [near.example], {tcp}, addresses: [10.7.1.0/24, 10.8.0.1/32]}}")
    wide = document("ServiceEntry", "wide", f"{{hosts: [wide.example], {tcp}, addresses: [10.7.0.0/16]}}")
    listeners = compiled("web-v1", near, wide)["listeners"]
    ranges = [one["filter_chain_match"]["prefix_ranges"] for one in listeners["0.0.0.0_6000"]["filter_chains"]]
    assert ranges == [[{"address_prefix": "10.7.1.0", "prefix_len": 24}], [{"address_prefix": "10.7.0.0", "prefix_len": 16}]]
    assert "filter_chain_match" not in listeners["10.8.0.1_6000"]["filter_chains"][0]
    whole = world(near, wide)
    table = names(whole, whole.topology.workload("web-v1"))["table"]
    assert (table["near.example"]["ips"], "wide.example" in table) == (["10.8.0.1"], False)
