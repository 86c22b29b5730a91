"""A devmesh Fault is an inbound route of the callee, in front of its default one; a partition is addresses, at both sides."""

import pytest

from devmesh.compiler import World, faults
from devmesh.config.loader import load_text
from devmesh.config.topology import Topology
from tests.compiler.worlds import TOPOLOGY, compiled, fault


def inbound_routes(*yaml, workload="api-v1", chain="0.0.0.0_8000"):
    chains = compiled(workload, *yaml)["listeners"]["virtualInbound"]["filter_chains"]
    manager = next(one for one in chains if one["name"] == chain)["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"][0]["routes"]


def test_without_faults_there_is_only_the_default_route():
    assert [route["name"] for route in inbound_routes()] == ["default"]


def test_an_abort_for_part_of_the_requests_comes_before_the_default_route():
    first, default = inbound_routes(fault("{id: f1, target: api, abort: {httpStatus: 503, percentage: 12.5}}"))
    assert (first["name"], default["name"]) == ("fault/f1", "default")
    abort = first["typed_per_filter_config"]["envoy.filters.http.fault"]["abort"]
    assert abort == {"http_status": 503, "percentage": {"numerator": 125000, "denominator": "MILLION"}}
    assert first["route"] == default["route"]


def test_a_delay_is_written_as_a_duration():
    first, _ = inbound_routes(fault("{id: f1, target: api, delay: {fixedDelay: 0.3}}"))
    assert first["typed_per_filter_config"]["envoy.filters.http.fault"]["delay"]["fixed_delay"] == "0.300s"


def test_a_path_is_exact_unless_a_star_ends_it():
    assert inbound_routes(fault("{id: f1, target: api, path: /a, abort: {httpStatus: 500}}"))[0]["match"] == {"path": "/a"}
    assert inbound_routes(fault('{id: f1, target: api, path: "/a/*", abort: {httpStatus: 500}}'))[0]["match"] == {"prefix": "/a/"}


def test_headers_and_the_callers_identity_narrow_the_match():
    text = "{id: f1, target: api, from: web, headers: {end-user: jason}, abort: {httpStatus: 500}}"
    header, caller = inbound_routes(fault(text))[0]["match"]["headers"]
    assert header == {"name": "end-user", "string_match": {"exact": "jason"}}
    assert caller["name"] == "x-forwarded-client-cert"
    assert "spiffe://cluster\\.local/ns/default/sa/web" in caller["string_match"]["safe_regex"]["regex"]


def test_other_services_are_left_alone():
    assert [route["name"] for route in inbound_routes(fault("{id: f1, target: web, abort: {httpStatus: 500}}"))] == ["default"]


def cut_off(workload, *yaml):
    hole = compiled(workload, *yaml)["clusters"]["BlackHoleCluster"]
    return hole.get("metadata", {}).get("filter_metadata", {}).get("devmesh", {}).get("partition", {})


@pytest.mark.parametrize(
    ("workload", "expected", "because"),
    [
        ("web-v1", {"10.0.0.2": "f1", "10.0.0.3": "f1"}, "every workload of the other service"),
        ("api-v1", {"10.0.0.1": "f1"}, "both ways"),
        ("api-v2", {"10.0.0.1": "f1"}, "every workload of a side"),
        ("gate-v1", {}, "nobody else"),
    ],
)
def test_a_partition_keeps_each_side_from_the_addresses_of_the_other(workload, expected, because):
    assert cut_off(workload, fault("{id: f1, target: web, partition: api}")) == expected, because
    assert cut_off(workload) == {}


def test_a_side_may_be_one_workload_or_the_gateway():
    yaml = fault("{id: f1, target: gate-v1, partition: api-v2}")
    assert cut_off("gate-v1", yaml) == {"10.0.0.3": "f1"}
    assert cut_off("api-v2", yaml) == {"10.0.0.4": "f1"}
    assert cut_off("api-v1", yaml) == {}


def test_a_workload_on_several_networks_is_out_of_reach_on_each():
    (web, *others) = (one for one in TOPOLOGY["workloads"] if one["name"] in ("web-v1", "api-v1"))
    topology = {**TOPOLOGY, "workloads": [{**web, "addresses": {"front": "10.0.0.1", "back": "10.1.0.1"}}, *others]}
    loaded = load_text(fault("{id: f1, target: web, partition: api}"), "mesh.yaml")
    world = World.from_topology(Topology.from_json(topology), loaded.resources)
    assert faults.cut_off(world, world.topology.workload("api-v1")) == {"10.0.0.1": "f1", "10.1.0.1": "f1"}


def test_partitions_pauses_and_kills_change_no_route():
    for spec in ("partition: web", "pause: true, hits: 1", "kill: true, hits: 1"):
        assert [route["name"] for route in inbound_routes(fault(f"{{id: f1, target: api, {spec}}}"))] == ["default"]
