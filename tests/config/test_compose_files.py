"""A project of several files: what it means is compose's word, where it stands is found in the files."""

import pytest

from devmesh.config.compose_files import place_of
from devmesh.config.topology import load_topology
from devmesh.errors import DevmeshError

MAIN = """\
include:
  - shared/${PART}.yaml
services:
  web:
    extends: {file: base.yaml, service: common}
    ports: ["8080:80"]
"""
BASE = """\
services:
  common:
    image: x
    labels:
      app: shop
    hostname: front
"""
SHARED = """\
services:
  db:
    image: x
    expose: ["5432"]
    labels: {version: "v 1"}
"""
OVERRIDE = """\
services:
  web:
    x-devmesh:
      version: "v 2"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shared").mkdir()
    for name, text in (("compose.yaml", MAIN), ("base.yaml", BASE), ("shared/data.yaml", SHARED), ("compose.override.yaml", OVERRIDE)):
        (tmp_path / name).write_text(text)
    return tmp_path


def web(**more):
    return {"image": "x", "labels": {"app": "shop"}, "hostname": "front", "ports": [{"target": 80, "published": "8080"}], **more}


def load(folder, services):
    project = {"name": "shop", "services": services}
    return load_topology(folder / "compose.yaml", environ={"PART": "data"}, merged=lambda: project)


def test_services_are_what_compose_says_and_its_dollars_are_single_again(folder):
    found = load(folder, {"web": web(build={"context": "/src"}, command=["echo", "$${HOME}"]), "db": {"image": "x", "expose": ["5432"]}})
    assert [(one.name, one.service, one.ports) for one in found.workloads[:2]] == [("web", "shop", (80,)), ("db", "db", (5432,))]
    assert found.workload("web").command == ("echo", "${HOME}")


def test_services_that_compose_chose_run_whatever_their_profiles(folder):
    assert load(folder, {"web": web(profiles=["site"])}).workload("web") is not None


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ({"web": web(), "db": {"image": "x", "expose": ["5432"], "labels": {"version": "v 1"}}}, r"shared/data.yaml:2:\d+: version"),
        ({"web": web(**{"x-devmesh": {"version": "v 2"}})}, r"compose.override.yaml:4:\d+: version"),
        ({"web": web(hostname="db.default"), "db": {"image": "x", "expose": ["1"]}}, r'base.yaml:6:\d+: "db.default" is given to web'),
        ({"web": web(deploy={"replicas": "many"})}, r"[/]compose.yaml:4:\d+: services.web.deploy.replicas"),
    ],
)
def test_a_mistake_is_told_where_it_stands(folder, services, words):
    with pytest.raises(DevmeshError, match=words):
        load(folder, services)


WRONG = """\
services:
  web:
    image: x
    prots: ["80"]
    depends_on: [dbb]
    ports: ["80", {}]
    networks:
    - nope
    env_file: [a.env, {path: missing.env}]
volumes:
  data: {size: 1}
"""


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("services.web Additional property prots is not allowed", 4),
        ("services.web additional properties 'prots' not allowed", 4),
        ("services.web.ports.1 must be a string", 6),
        ("services.web.image must be a string", 3),
        ("volumes.data Additional property size is not allowed", 11),
        ('service "web" depends on undefined service "dbb": invalid compose project', 5),
        ('service "web" refers to undefined network nope: invalid compose project', 7),
        ('service "web" refers to undefined secret nope: invalid compose project', 2),
        ('service "web" has neither an image nor a build context specified', 2),
        ("env file {folder}/missing.env not found: stat {folder}/missing.env", 9),
        ("env file /elsewhere/missing.env not found", None),
        ("something else", None),
    ],
)
def test_what_compose_complains_about_is_told_where_it_stands(tmp_path, words, place):
    file = tmp_path / "compose.yaml"
    file.write_text(WRONG)
    found = place_of(file, words.format(folder=tmp_path), {})
    assert (found and (found.file, found.line)) == (place and (str(file), place))


def test_what_is_no_yaml_has_its_place_whatever_compose_says_of_it(tmp_path):
    (tmp_path / "compose.yaml").write_text("services:\n  web: {image: x, ports: [80\n  api: {image: x}\n")
    assert str(place_of(tmp_path / "compose.yaml", "yaml: line 1: did not find", {})).startswith(f"{tmp_path}/compose.yaml:3")
    assert place_of(tmp_path / "gone.yaml", "open gone.yaml", {}) is None


def test_files_that_lead_to_each_other_end(folder):
    (folder / "base.yaml").write_text("include: [compose.yaml]\nservices: {common: {extends: {file: compose.yaml, service: web}}}\n")
    with pytest.raises(DevmeshError, match=r"compose.yaml:4"):
        load(folder, {"web": web(deploy={"replicas": "many"})})


def test_a_file_of_its_own_is_read_without_compose(tmp_path):
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x}}\n")

    def asked():
        raise AssertionError("compose is not needed")

    assert load_topology(tmp_path / "compose.yaml", environ={}, merged=asked).workload("a") is not None


def test_an_override_counts_beside_a_file_of_composes_own_names_only(folder):
    (folder / "other.yaml").write_text("services: {a: {image: x}}\n")
    assert load_topology(folder / "other.yaml", environ={}).workload("a") is not None
