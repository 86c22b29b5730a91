"""The mesh's own containers: who is on which network, what is published, what they are held to."""

from pathlib import Path

import pytest

from devmesh.runtimes.docker.layout import CONTROL_NETWORK, HOST_NETWORK, REGISTRY_NETWORK
from devmesh.runtimes.docker.project import render
from tests.runtimes.docker.layouts import layout_from

TEXT = "name: a\nservices: {web: {image: x, expose: ['80']}}\n"


@pytest.fixture
def project(tmp_path: Path):
    return render(layout_from(tmp_path, TEXT))


def test_no_pod_shares_a_network_with_the_registry(project):
    on = {name: set(one.get("networks") or ()) for name, one in project["services"].items()}
    assert {name for name, networks in on.items() if REGISTRY_NETWORK in networks} == {"consul", "control"}
    assert on["web-pod"] == {"default", CONTROL_NETWORK}
    assert on["ca"] == {CONTROL_NETWORK}
    assert HOST_NETWORK not in on["web-pod"]


def test_registry_and_control_networks_are_internal(project):
    networks = project["networks"]
    assert networks[REGISTRY_NETWORK]["internal"]
    assert networks[CONTROL_NETWORK]["internal"]
    assert "internal" not in networks[HOST_NETWORK], "or it would publish nothing"


def test_what_the_mesh_publishes_is_on_loopback_only(project):
    published = [
        port
        for name in ("consul", "ca", "control", "jaeger", "istio-ingressgateway")
        for port in project["services"][name].get("ports", ())
    ]
    assert len(published) == 8
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_each_part_has_a_health_check_a_limit_and_a_restart_policy(project):
    for name in ("consul", "ca", "control", "jaeger", "istio-ingressgateway", "web-sidecar"):
        assert {"healthcheck", "mem_limit", "pids_limit", "restart"} <= project["services"][name].keys()


def test_a_users_service_keeps_its_name_and_ours_gives_way(tmp_path):
    layout = layout_from(tmp_path, "name: a\nservices: {consul: {image: x, expose: ['80']}, mesh-consul: {image: y}}\n")
    services = render(layout)["services"]
    assert layout.parts["consul"] == "mesh-mesh-consul"
    assert services["consul"]["image"] == "x"
    own, theirs = services["mesh-mesh-consul"]["volumes"][0]["source"], services["consul-sidecar"]["volumes"][0]["source"]
    assert own != theirs, "the registry's folder holds the mesh's token"
