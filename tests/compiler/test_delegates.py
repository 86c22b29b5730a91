"""Routes of a delegate: what they are made of is compared with Istio in the square; here, where they lead back to."""

import pytest

from devmesh.compiler import World, compile_proxy
from devmesh.config.delegates import contradicts
from devmesh.config.istio_networking import HTTPMatchRequest
from devmesh.config.loader import load_text
from devmesh.config.topology import Topology
from tests.compiler.worlds import TOPOLOGY, virtual_service

ROOT = """
  hosts: [api]
  http:
  - match: [{uri: {prefix: /own}}]
    route: [{destination: {host: api}}]
  - delegate: {name: team}
"""
TEAM = """
  http:
  - match: [{uri: {prefix: /first}}]
    route: [{destination: {host: web}}]
  - route: [{destination: {host: api}}]
"""


def test_the_origin_of_a_delegates_route_is_in_the_delegates_file():
    resources = [
        *load_text(virtual_service(ROOT), "root.yaml").resources,
        *load_text(virtual_service(TEAM, "team"), "team.yaml").resources,
    ]
    found = compile_proxy(World.from_topology(Topology.from_json(TOPOLOGY), resources), "web-v1").snapshot.to_json()
    hosts = [host for table in found["routes"] for host in table["virtual_hosts"] if host["name"].startswith("api.")]
    sources = [route["metadata"]["filter_metadata"]["devmesh"]["source"] for host in hosts for route in host["routes"]]
    assert sources == ["root.yaml:7:5", "team.yaml:6:5", "team.yaml:8:5"]


@pytest.mark.parametrize(
    ("root", "leaf", "expected"),
    [
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, False),
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}, True),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/ab"}}, False),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, True),
        ({"uri": {"regex": ".*"}}, {"uri": {"exact": "/a"}}, True),
        ({"uri": {"prefix": "/"}}, {"uri": {"regex": "/a"}}, True),
        ({"uri": {"prefix": "/"}}, {}, False),
        ({"headers": {"x": {}}}, {"headers": {"x": {"exact": "a"}}}, True),
        ({"headers": {"x": {"exact": "a"}}}, {"headers": {"y": {"exact": "b"}}}, False),
        ({"ignoreUriCase": True}, {}, True),
        ({"port": 80}, {"port": 81}, True),
        ({"port": 80}, {}, False),
        ({"sourceNamespace": "a"}, {}, True),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"version": "v1"}}, False),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"app": "b"}}, True),
        ({"gateways": ["a/g", "mesh"]}, {"gateways": ["mesh"]}, False),
        ({"gateways": ["a/g"]}, {"gateways": ["mesh"]}, True),
        ({"gateways": ["mesh"]}, {}, False),
    ],
)  # fmt: skip
def test_a_delegates_match_lies_within_the_roots_as_istiod_sees_it(root, leaf, expected):
    assert contradicts(HTTPMatchRequest.model_validate(root), HTTPMatchRequest.model_validate(leaf)) is expected
