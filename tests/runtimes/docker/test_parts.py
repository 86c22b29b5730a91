"""The mesh's own containers: who is on which network, what is published, what they are held to."""

import json
from pathlib import Path

import pytest

from devmesh.runtimes.docker.layout import CONTROL_NETWORK, HOST_NETWORK, REGISTRY_NETWORK
from devmesh.runtimes.docker.prepare import Secrets, write_files
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


@pytest.fixture
def with_addons(tmp_path: Path):
    layout = layout_from(tmp_path, TEXT, folder=tmp_path / ".devmesh", addons=("prometheus", "grafana"))
    write_files(layout, "token", {}, Secrets(gives_away=False))
    return layout, render(layout)


def test_addons_are_held_as_short_as_the_other_parts(with_addons):
    for name, port in (("prometheus", 9090), ("grafana", 3000)):
        service = with_addons[1]["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert {"healthcheck", "mem_limit", "pids_limit", "restart"} <= service.keys()
        assert "user" not in service, "the image's own owns its volume"


def test_only_prometheus_reaches_the_sidecars_and_neither_addon_the_registry(with_addons):
    on = {name: set(with_addons[1]["services"][name]["networks"]) for name in ("prometheus", "grafana")}
    assert on == {"prometheus": {CONTROL_NETWORK, HOST_NETWORK}, "grafana": {HOST_NETWORK}}


def test_a_mesh_without_addons_has_neither_their_containers_nor_their_volumes(project):
    assert not {"prometheus", "grafana"} & project["services"].keys()
    assert not {"mesh-prometheus", "mesh-grafana"} & project["volumes"].keys()


def test_prometheus_is_told_every_sidecar_by_its_address_on_the_control_network(with_addons):
    layout, project = with_addons
    targets = json.loads((layout.part_folder("prometheus") / "envoy-stats.json").read_bytes())
    addresses = {one["labels"]["pod"]: one["targets"][0] for one in targets}
    pod = project["services"]["web-pod"]["networks"][CONTROL_NETWORK]["ipv4_address"]
    gateway = project["services"]["istio-ingressgateway"]["networks"][CONTROL_NETWORK]["ipv4_address"]
    assert addresses == {"web": f"{pod}:15090", "istio-ingressgateway": f"{gateway}:15090"}
    (datasource,) = json.loads((layout.part_folder("grafana") / "provisioning/datasources/devmesh.yaml").read_bytes())["datasources"]
    assert datasource["url"] == "http://prometheus:9090"


def test_a_users_service_called_prometheus_keeps_its_name(tmp_path):
    text = "name: a\nservices: {prometheus: {image: x, expose: ['80']}}\n"
    layout = layout_from(tmp_path, text, folder=tmp_path / ".devmesh", addons=("prometheus", "grafana"))
    write_files(layout, "token", {}, Secrets(gives_away=False))
    assert layout.parts["prometheus"] == "mesh-prometheus"
    assert "http://mesh-prometheus:9090" in (layout.part_folder("grafana") / "provisioning/datasources/devmesh.yaml").read_text()
