"""Routes to where no network leads, told at their line."""

from dataclasses import replace

import pytest

from devmesh.config.analysis import analyze
from devmesh.config.loader import load_text
from devmesh.config.topology import load_topology

COMPOSE = """\
name: shop
services:
  web: {image: x, expose: ['80'], networks: [front]}
  api: {image: x, expose: ['80'], labels: {app: api, version: v1}, networks: [front, back]}
  api-new: {image: x, expose: ['80'], labels: {app: api, version: v2}, networks: [back]}
  db: {image: x, expose: ['80'], networks: [back]}
  vault: {image: x, expose: ['80'], networks: [alone]}
networks: {front: {}, back: {}, alone: {}}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule}
spec:
  host: HOST
  subsets:
  - {name: v2, labels: {version: v2}}
"""
ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: route}
spec:
  hosts: [api]
  http:
  - route:
    - destination: {host: HOST}
"""


def found(tmp_path, text, *, networks=True):
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    topology = load_topology(tmp_path / "compose.yaml", environ={})
    placed = (replace(one, addresses=dict.fromkeys(one.networks or ("front", "back", "alone"), "10.0.0.1")) for one in topology.workloads)
    if networks:
        topology = replace(topology, workloads=tuple(placed))
    return [str(one) for one in analyze(load_text(text, "mesh.yaml").resources, topology) if one.code == "DM0013"]


def test_a_route_to_a_service_that_a_caller_shares_no_network_with_is_told_at_its_line(tmp_path):
    (said,) = found(tmp_path, ROUTE.replace("HOST", "db"))
    assert said.startswith("mesh.yaml:8:")
    assert "web is on no network of db: such requests get 503 UH" in said


def test_a_route_that_every_caller_of_the_host_can_follow_is_fine(tmp_path):
    assert found(tmp_path, ROUTE.replace("HOST", "api")) == []


def test_a_mirror_is_a_way_too(tmp_path):
    text = ROUTE.replace("HOST", "api") + "    mirror: {host: vault}\n"
    (said,) = found(tmp_path, text)
    assert said.startswith("mesh.yaml:9:")
    assert "web, db are on no network of vault" in said


def test_a_subset_on_another_network_than_its_callers_is_told_at_rule_and_route(tmp_path):
    text = RULE.replace("HOST", "api") + "---\n" + ROUTE.replace("{host: HOST}", "{host: api, subset: v2}")
    rule, route = found(tmp_path, text)
    assert rule.startswith("mesh.yaml:7:")
    assert route.startswith("mesh.yaml:16:")
    assert "web is on no network of api subset v2" in rule
    assert "web is on no network of api subset v2" in route


def test_a_rule_for_a_service_that_nobody_shares_a_network_with_has_no_effect(tmp_path):
    (said,) = found(tmp_path, RULE.replace("HOST", "vault").partition("  subsets")[0])
    assert said.startswith("mesh.yaml:5:")
    assert "no other workload is on a network of vault.default.svc.cluster.local's" in said


@pytest.mark.parametrize("text", [ROUTE.replace("HOST", "db"), RULE.replace("HOST", "vault")])
def test_without_networks_everybody_reaches_everybody(tmp_path, text):
    assert found(tmp_path, text, networks=False) == []


def test_a_route_for_a_gateway_alone_is_fine_because_gateways_are_on_every_network(tmp_path):
    assert found(tmp_path, ROUTE.replace("HOST", "db").replace("spec:\n", "spec:\n  gateways: [gate]\n")) == []
