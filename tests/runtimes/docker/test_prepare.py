"""The files that containers are given: who can read them, and that no secret is anywhere else."""

import json
import os
import stat

import pytest

from devmesh.ca.tokens import TokenStore
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.entry import seed
from devmesh.runtimes.docker.layout import COLLECTOR
from devmesh.runtimes.docker.prepare import Secrets, check_given_files, published_ports, without_effect, write_files
from devmesh.runtimes.docker.project import as_yaml, render
from devmesh.sidecar.bootstrap import Bootstrap, parse_address
from tests.runtimes.docker.layouts import layout_from

TEXT = "name: a\nservices: {web: {image: x, expose: ['80']}, api: {image: x, expose: ['81']}}\n"
TOKEN = "the-mesh-token-0123456789"


@pytest.fixture
def layout(tmp_path):
    made = layout_from(tmp_path, TEXT, folder=tmp_path / ".devmesh" / "docker")
    write_files(made, TOKEN, {}, Secrets(gives_away=False))
    return made


def token_of(layout, workload):
    return (layout.workload_folder(workload) / "token").read_text()


def test_no_secret_is_in_the_rendered_project(layout):
    text = as_yaml(render(layout), "compose.yaml")
    for secret in (TOKEN, token_of(layout, "web"), token_of(layout, "istio-ingressgateway")):
        assert secret not in text


def test_a_sidecar_is_given_its_own_token_and_nobody_elses(layout):
    mounted = [one["source"] for one in render(layout)["services"]["web-sidecar"]["volumes"] if one["type"] == "bind"]
    assert mounted == [str(layout.workload_folder("web"))]
    texts = [path.read_text() for path in layout.workload_folder("web").iterdir()]
    assert not any(TOKEN in text or token_of(layout, "api") in text for text in texts)


def test_only_registry_ca_and_control_plane_know_the_meshs_token(layout):
    holders = {path.parent.name for path in layout.folder.rglob("*") if path.is_file() and TOKEN in path.read_text()}
    assert holders == {"consul", "ca", "control"}


def test_the_ca_gets_hashes_only(layout):
    grants = (layout.part_folder("ca") / "grants.json").read_text()
    assert token_of(layout, "web") not in grants
    assert {one["workload"] for one in json.loads(grants).values()} == {"web", "api", "istio-ingressgateway", "controlplane"}


def test_what_may_be_given_away_is_the_containers_own_and_closed(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((path.name, uid, gid)))
    Secrets(gives_away=True).write(tmp_path / "token", b"x", 1337)
    assert given == [("token", 1337, 1337)]
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_what_may_not_be_given_away_is_behind_a_closed_folder(layout):
    assert stat.S_IMODE(layout.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((layout.workload_folder("web") / "token").stat().st_mode) == 0o644


def test_a_bootstrap_is_one_that_a_sidecar_takes(layout):
    bootstrap = Bootstrap.load(layout.workload_folder("web") / "bootstrap.json")
    ip = layout.topology.workload("web").ip
    assert bootstrap.dial == {f"{ip}:80": (ip, 80)}
    assert bootstrap.ca.url == "https://ca:15011"
    assert [one.role for one in bootstrap.sockets] == ["admin", "health", "prometheus"], "redirected connections come by the pod's sockets"


def test_of_the_meshs_own_an_app_reaches_one_port_of_the_collector_through_its_sidecar(layout):
    bootstrap = Bootstrap.load(layout.workload_folder("web") / "bootstrap.json")
    assert bootstrap.elsewhere == {parse_address(COLLECTOR): ("jaeger", 4318)}
    assert bootstrap.excluded == {parse_address(COLLECTOR)}


def test_the_gateway_listens_for_itself(layout):
    bootstrap = Bootstrap.load(layout.workload_folder("istio-ingressgateway") / "bootstrap.json")
    published = [(one.port, one.original) for one in bootstrap.sockets if one.role == "published"]
    ip = layout.topology.workload("istio-ingressgateway").ip
    assert published == [(8080, (ip, 8080)), (8443, (ip, 8443)), (31400, (ip, 31400))]


def test_a_new_up_replaces_the_tokens_of_before_and_leaves_others(tmp_path, layout):
    directory = tmp_path / "ca"
    store = TokenStore(directory / "tokens.json")
    spiffe_id = next(iter(TokenStore(layout.part_folder("ca") / "grants.json")._grants.values())).spiffe_id
    old, other = store.mint("web", spiffe_id), store.mint("attached", spiffe_id)
    seed(directory, json.loads((layout.part_folder("ca") / "grants.json").read_bytes()))
    seeded = TokenStore(directory / "tokens.json")
    assert seeded.grant_of(old) is None
    assert seeded.grant_of(other).workload == "attached"
    assert seeded.grant_of(token_of(layout, "web")).workload == "web"


def services(*published):
    """(service, host port, address) each."""
    out = {}
    for name, number, address in published:
        out.setdefault(name, {"ports": []})["ports"].append({"target": 80, "published": number, "host_ip": address, "protocol": "tcp"})
    return out


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ([("a", "80", ""), ("b", "80", "")], "port 80 is published by a and by b"),
        ([("a", "80", ""), ("b", "80", "127.0.0.1")], "port 80 is published by a and by b"),
        ([("a", "80", "127.0.0.1"), ("b", "80", "0.0.0.0")], "port 80 is published by a and by b"),
        ([("a", "80", ""), ("a", "80", "")], "port 80 is published twice by a"),
    ],
)
def test_a_port_that_is_wanted_twice_on_one_address_is_refused_before_anything_starts(published, words):
    with pytest.raises(DevmeshError, match=words):
        published_ports(services(*published))


def test_a_port_may_be_published_on_two_addresses():
    assert published_ports(services(("a", "80", "127.0.0.1"), ("b", "80", "127.0.0.2"), ("b", "0", ""), ("a", "0", ""))) == {80: "a"}
    assert published_ports(services(("a", "80", "0.0.0.0"), ("a", "80", "::"), ("b", "81", "::"))) == {80: "a", 81: "b"}


def test_certificates_beside_the_compose_file_are_given_to_the_gateway_only_and_not_kept(tmp_path):
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "tls.key").write_text("KEY")
    made = layout_from(tmp_path, "name: a\nservices: {web: {image: b, expose: ['80']}}\n")
    write_files(made, "token", {}, Secrets(gives_away=False))
    given = made.workload_folder("istio-ingressgateway") / "files" / "certs" / "tls.key"
    assert given.read_text() == "KEY"
    assert not (made.workload_folder("web") / "files").exists()
    (tmp_path / "certs" / "tls.key").unlink()
    write_files(made, "token", {}, Secrets(gives_away=False))
    assert not given.exists()


def test_a_range_that_another_mesh_is_about_to_have_is_left_to_it(tmp_path):
    first = layout_from(tmp_path, "name: shop\nservices: {web: {image: web, expose: ['80']}}\n")
    theirs = {one.network for one in first.addresses.subnets.values()}
    ours = layout_from(tmp_path, "name: shop\nservices: {web: {image: web, expose: ['80']}}\n", claim=lambda one: one not in theirs)
    assert not theirs & {one.network for one in ours.addresses.subnets.values()}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("network_mode: host", r"compose.yaml:4:\d+: service web has network_mode"),
        ("ports: [{target: 80, published: '18080'}]", r"compose.yaml:[34]:\d+: port 18080 is published by"),
    ],
)
def test_what_no_pod_can_be_made_of_is_told_with_its_place(tmp_path, given, words):
    with pytest.raises(DevmeshError, match=words):
        layout_from(
            tmp_path,
            f"name: a\nservices:\n  api: {{image: x, ports: [{{target: 80, published: '18080'}}]}}\n  web: {{image: x, {given}}}\n",
        )


@pytest.mark.parametrize("kind", ["secrets", "configs"])
def test_a_secret_or_config_whose_file_is_not_there_is_told_with_its_place(tmp_path, kind):
    layout = layout_from(
        tmp_path, f"name: a\nservices:\n  web: {{image: x, {kind}: [{{source: pw}}]}}\n{kind}: {{pw: {{file: {tmp_path}/pw}}}}\n"
    )
    with pytest.raises(DevmeshError, match=rf"compose.yaml:3:\d+: {kind[:-1]} pw of web: {tmp_path}/pw does not exist"):
        check_given_files(layout.config, layout.topology)
    (tmp_path / "pw").touch()
    check_given_files(layout.config, layout.topology)


def test_a_mac_address_that_an_engine_would_drop_is_told(tmp_path):
    layout = layout_from(tmp_path, "name: a\nservices:\n  api: {image: x}\n  web: {image: x, mac_address: '02:42:ac:11:65:43'}\n")
    (words,) = without_effect(layout.config, layout.topology, (20, 10))
    assert "compose.yaml:4:3: mac_address of web has no effect" in words
    assert without_effect(layout.config, layout.topology, (25, 0)) == []
