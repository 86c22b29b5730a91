"""Whose configuration is made once, and whose is not."""

import copy

import pytest

from devmesh.compiler import World, compile_proxy
from devmesh.compiler.outbound import neighbour
from devmesh.config.loader import load_text
from devmesh.config.topology import Topology
from tests.compiler.worlds import TOPOLOGY, virtual_service, world

FOR_WEB = "{hosts: [api], http: [{match: [{sourceLabels: {app: web}}], fault: {abort: {httpStatus: 418, percentage: {value: 100}}}, route: [{destination: {host: api}}]}]}"
FOR_WEB_TCP = "{hosts: [api], tcp: [{match: [{sourceLabels: {app: web}}], route: [{destination: {host: api, port: {number: 6000}}}]}]}"


def neighbour_of(made, name):
    return neighbour(made, made.topology.workload(name)).name


def changed(**more):
    """The world, with something more about web-v1."""
    topology = copy.deepcopy(TOPOLOGY)
    topology["workloads"][0] |= more
    topology["workloads"][2] |= {"addresses": {"front": "10.1.0.3"}} if "addresses" in more else {}
    return World.from_topology(Topology.from_json(topology))


def test_workloads_that_are_told_the_same_share_it():
    made = world()
    web, api = (compile_proxy(made, name).snapshot for name in ("web-v1", "api-v1"))
    assert web.resources["routes"][0] is api.resources["routes"][0]
    assert web.encoded["routes"][0] is api.encoded["routes"][0]
    assert (web.versions["routes"], web.versions["endpoints"]) == (api.versions["routes"], api.versions["endpoints"])
    assert web.versions["listeners"] != api.versions["listeners"], "each has its own ports"


@pytest.mark.parametrize("rule", [FOR_WEB, FOR_WEB_TCP])
def test_source_labels_tell_workloads_apart_and_other_labels_do_not(rule):
    made = world(virtual_service(rule))
    assert neighbour_of(made, "web-v1") == "web-v1"
    assert neighbour_of(made, "api-v2") == neighbour_of(made, "api-v1") == "api-v1"
    web, api = (compile_proxy(made, name).snapshot for name in ("web-v1", "api-v1"))
    assert {kind for kind, names in web.diff(api).items() if names} == {
        "routes" if rule is FOR_WEB else "listeners",
        "clusters",
        "listeners",
    }


def test_a_gateway_is_nobodys_neighbour():
    assert neighbour_of(world(), "gate-v1") == "gate-v1"


@pytest.mark.parametrize("more", [{"namespace": "other"}, {"addresses": {"front": "10.1.0.1"}}, {"gateway": True}])
def test_who_is_elsewhere_sees_something_else(more):
    made = changed(**more)
    assert neighbour_of(made, "web-v1") == "web-v1"
    assert neighbour_of(made, "api-v1") == "api-v1"


def test_an_alias_is_told_to_those_who_may_use_it():
    topology = copy.deepcopy(TOPOLOGY)
    topology["services"][1]["aliases"] = [{"name": "backend", "networks": [], "callers": ["web-v1"]}]
    made = World.from_topology(Topology.from_json(topology), load_text("", "mesh.yaml").resources)
    tables = {name: compile_proxy(made, name).snapshot.resources["names"][0]["table"] for name in ("web-v1", "api-v1", "api-v2")}
    assert {name: "backend.default.svc.cluster.local" in table for name, table in tables.items()} == {
        "web-v1": True,
        "api-v1": False,
        "api-v2": False,
    }
    assert tables["api-v1"] is tables["api-v2"]
