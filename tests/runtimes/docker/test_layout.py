"""Names, networks and addresses of a project."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.engine import ExistingNetwork
from devmesh.runtimes.docker.layout import HostPorts, own_names
from tests.runtimes.docker.layouts import layout_from

TWO = """\
name: a
services:
  web: {image: x, expose: ["80"], networks: {front: null, back: null}}
  db: {image: x, expose: ["80"], networks: {back: null}}
  ads: {image: x, expose: ["80"], networks: {front: null}}
networks: {front: null, back: null}
"""
EXTERNAL = "name: a\nservices: {web: {image: x, networks: {shared: null}}}\nnetworks: {shared: {name: team, external: true}}\n"


def network(name, subnet, project=""):
    return ExistingNetwork(name, project, (IPv4Network(subnet),) if subnet else (), IPv4Address("10.9.0.1"), frozenset(), internal=False)


def test_callers_reach_a_workload_on_a_network_that_both_are_on(tmp_path):
    topology = layout_from(tmp_path, TWO).topology
    web, db, ads = (topology.workload(name) for name in ("web", "db", "ads"))
    assert web.address_for(db) == web.addresses["back"]
    assert web.address_for(ads) == web.addresses["front"]
    assert db.address_for(ads) is None


def test_the_gateway_is_on_every_network(tmp_path):
    topology = layout_from(tmp_path, TWO).topology
    assert set(topology.workload("istio-ingressgateway").addresses) == {"front", "back"}


def test_subnets_avoid_other_networks_and_routes_but_not_the_projects_own_of_before(tmp_path):
    existing = [network("other_default", "10.210.0.0/24", "other"), network("a_default", "10.210.1.0/24", "a")]
    layout = layout_from(
        tmp_path,
        "name: a\nservices: {web: {image: x}}\n",
        existing=existing,
        routes=[IPv4Network("10.210.1.0/24"), IPv4Network("10.210.2.0/24")],
    )
    assert [str(one.network) for one in layout.addresses.subnets.values()] == [f"10.210.{n}.0/24" for n in (1, 3, 4, 5)]


def test_an_external_network_keeps_its_range(tmp_path):
    layout = layout_from(tmp_path, EXTERNAL, existing=[network("team", "10.9.0.0/24")])
    assert layout.topology.workload("web").ip == "10.9.0.254"


@pytest.mark.parametrize(("existing", "words"), [([], "the engine has no network team"), ([network("team", "")], "has no IPv4 subnet")])
def test_an_external_network_that_cannot_be_used_is_an_error_with_the_command(tmp_path, existing, words):
    with pytest.raises(DevmeshError, match=words) as caught:
        layout_from(tmp_path, EXTERNAL, existing=existing)
    assert "docker network create" in (caught.value.hint or "")


def test_host_ports_that_are_taken_are_others():
    ports = HostPorts.choose(lambda port: 40000 if port == 8500 else port)
    assert (ports.registry, ports.query) == (40000, 16686)


def test_the_meshs_own_ports_leave_alone_what_the_users_file_publishes(tmp_path):
    text = "name: a\nservices: {web: {image: x, ports: [{target: 80, published: '8080'}]}}\n"
    assert layout_from(tmp_path, text, prefer=lambda port: port or 40001).ports.gateway == 40001


def test_own_names_give_way_to_the_users():
    assert own_names(["ca", "web"])["ca"] == "mesh-ca"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nservices: {web: {image: x}, web-pod: {image: y}}\n", 'service "web-pod" has the name of the pod of web'),
        ("name: a\nservices: {web: {image: x}, web-sidecar: {image: y}}\n", "the name of the sidecar of web"),
        ("name: a\nservices: {web: {image: x, networks: {mesh-control: null}}}\nnetworks: {mesh-control: null}\n", "networks.mesh-control"),
        ("name: a\nservices: {web: {image: x}}\nvolumes: {mesh-ca: {}}\n", "volumes.mesh-ca"),
        (
            "name: a\nservices: {a: {image: x, ports: [{target: 80, published: '90'}]}, b: {image: x, ports: [{target: 80, published: '90'}]}}\n",
            "port 90 is published by a and by b",
        ),
    ],
)
def test_a_name_that_the_mesh_needs_is_refused(tmp_path, text, words):
    with pytest.raises(DevmeshError, match=words):
        layout_from(tmp_path, text)
