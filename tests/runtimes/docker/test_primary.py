"""A project that joins a first mesh: its pods on the first one's networks, nothing of the mesh's own in it."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from devmesh.config.topology import Gateways, load_topology
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.bring_up import state_of
from devmesh.runtimes.docker.engine import ExistingNetwork
from devmesh.runtimes.docker.layout import Layout
from devmesh.runtimes.docker.pods import refused_names
from devmesh.runtimes.docker.prepare import Joining, Secrets, Surroundings, lay_out, write_files
from devmesh.runtimes.docker.primary import DockerPrimary
from devmesh.runtimes.docker.project import render
from devmesh.runtimes.primary import View, with_addresses_of
from tests.runtimes.docker.layouts import IMAGES, MESH_ID, layout_from

SHOP = "name: shop\nservices: {web: {image: x, expose: ['80']}, reviews-v1: {image: x, expose: ['81'], labels: {app: reviews}}}\n"
DESK = "name: desk\nservices: {caller: {image: x, expose: ['80']}, reviews-v9: {image: x, expose: ['81'], labels: {app: reviews}}}\n"


@pytest.fixture
def shop(tmp_path: Path) -> Layout:
    (tmp_path / "shop").mkdir()
    return layout_from(tmp_path / "shop", SHOP)


def primary_of(shop: Layout, tmp_path: Path) -> DockerPrimary:
    return DockerPrimary(tmp_path / "shop", state_of(shop, tmp_path / "shop" / "compose.yaml"), "the-token")


def engines_networks(shop: Layout) -> list[ExistingNetwork]:
    """As the engine lists them, its pods' addresses in use."""
    used = frozenset(IPv4Address(address) for one in shop.topology.workloads for address in one.addresses.values())
    return [
        ExistingNetwork(f"shop_{key}", "shop", (one.network,), None, used, internal=False) for key, one in shop.addresses.subnets.items()
    ]


@pytest.fixture
def desk(shop: Layout, tmp_path: Path) -> Layout:
    return joined(shop, tmp_path, DESK)


def joined(shop: Layout, tmp_path: Path, text: str) -> Layout:
    place = tmp_path / "desk"
    place.mkdir()
    (place / "compose.yaml").write_text(text)
    config = YAML(typ="safe").load(text)
    for service in config["services"].values():
        service["networks"] = {"default": None}
    topology = load_topology(place / "compose.yaml", environ={}, gateways=Gateways(ingress=False))
    ours = replace(topology, services=with_addresses_of(shop.topology, topology.services))
    joining = Joining(primary_of(shop, tmp_path), View(ours, shop.topology.joined([ours]), {}))
    return lay_out(config, ours, place / ".devmesh", IMAGES, MESH_ID, Surroundings(existing=engines_networks(shop)), joining)


def test_its_project_is_its_own_pods_on_both_projects_networks(desk):
    project = render(desk)
    assert set(project["services"]) == {f"{name}{part}" for name in ("caller", "reviews-v9") for part in ("", "-pod", "-sidecar")}
    assert set(project["services"]["caller-pod"]["networks"]) == {"default", "shop-default", "mesh-control"}
    assert project["networks"]["shop-default"] == {"external": True, "name": "shop_default"}
    assert project["networks"]["mesh-control"] == {"external": True, "name": "shop_mesh-control"}
    assert project["volumes"] == {"mesh-trust": {"external": True, "name": "shop_mesh-trust"}}


def test_its_apps_find_the_first_meshs_services_and_none_of_its_containers(desk):
    hosts = dict(one.split(":") for one in render(desk)["services"]["caller-pod"]["extra_hosts"])
    assert hosts["web"] != hosts["caller"]
    assert hosts["reviews"] == "240.240.0.2"
    assert {"web-pod", "reviews-v1-pod", "control"} <= set(refused_names(desk, desk.topology.workloads[0]))


def test_a_service_that_both_have_keeps_its_address_and_no_other_has_it(shop, desk):
    first = {one.name: one.cluster_ip for one in shop.topology.services}
    second = {one.name: one.cluster_ip for one in desk.topology.services}
    assert second["reviews"] == first["reviews"]
    assert second["caller"] not in first.values()


def test_the_first_mesh_reaches_its_workloads_on_its_own_network(shop, desk, tmp_path):
    told = primary_of(shop, tmp_path).told(desk.topology)
    caller, web = told.workload("caller"), shop.topology.workload("web")
    assert caller is not None
    assert web is not None
    assert caller.address_for(web) == desk.addresses.of("shop-default", "caller-pod")
    assert web.address_for(caller) == shop.addresses.of("default", "web-pod")
    assert set(caller.addresses) == {"default", "desk/default"}


def test_it_is_given_no_secret_of_the_mesh_but_its_own_tokens(desk):
    write_files(desk, "the-token", {}, Secrets(gives_away=False), {"caller": "token-of-caller", "reviews-v9": "token-of-reviews"})
    texts = {path.relative_to(desk.folder).as_posix(): path.read_text() for path in desk.folder.rglob("*") if path.is_file()}
    assert texts["workloads/caller/token"] == "token-of-caller"
    assert not any("the-token" in text for text in texts.values())
    assert {name.split("/")[0] for name in texts} == {"workloads"}


def test_a_network_with_the_name_of_one_of_the_first_meshs_is_refused(shop, tmp_path):
    with pytest.raises(DevmeshError, match=r"networks\.shop-default has the name of one of the first mesh's"):
        joined(shop, tmp_path, DESK + "networks: {shop-default: {}}\n")
