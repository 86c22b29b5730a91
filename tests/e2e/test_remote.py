"""Profile `remote`: a second project on the first one's control plane."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import RunningMesh, running, until
from tests.support.require import pods

pytestmark = pytest.mark.e2e
PROMETHEUS = ("--set", "addonComponents.prometheus.enabled=true") if shutil.which("prometheus") else ()
SHOP = """
name: shop
services:
  web:
    image: local
    expose: ["9080"]
    x-devmesh: {protocol: http, local: {command: python3 -m http.server 9080}}
  details-v1:
    image: local
    expose: ["9080"]
    labels: {app: details}
    x-devmesh: {protocol: http, local: {command: python3 -m http.server 9080}}
  reviews-v1:
    image: local
    expose: ["9080"]
    labels: {app: reviews, version: v1}
    x-devmesh: {protocol: http, local: {command: python3 -m http.server 9080}}
"""
DESK = """
name: desk
services:
  caller:
    image: local
    expose: ["9090"]
    x-devmesh: {protocol: http, local: {command: python3 -m http.server 9090}}
  reviews-v9:
    image: local
    expose: ["9080"]
    labels: {app: reviews, version: v9}
    x-devmesh: {protocol: http, local: {command: python3 -m http.server 9080}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="module")
def shop(folder: Path) -> Iterator[RunningMesh]:
    pods()
    place = folder / "shop"
    place.mkdir()
    (place / "compose.yaml").write_text(SHOP)
    (place / "page").touch()
    with running(place, "namespace", settings=PROMETHEUS) as mesh:
        yield mesh


@pytest.fixture
def desk(folder: Path, shop: RunningMesh) -> Iterator[RunningMesh]:
    del shop  # is up
    place = folder / "desk"
    (place / "mesh").mkdir(parents=True, exist_ok=True)
    (place / "compose.yaml").write_text(DESK)
    (place / "mesh" / "rule.yaml").write_text("kind: Nonsense\n")
    mesh = RunningMesh(place, interception="namespace")
    yield mesh
    mesh.devmesh("down", check=False)


def scraped(mesh: RunningMesh) -> set[str]:
    """Whose metrics the mesh's Prometheus asks for; nobody's without one on this machine."""
    url = mesh.json("status")["urls"]["mesh"].get("prometheus")
    if url is None:
        return set()
    return {one["labels"]["pod"] for one in json.loads(mesh.fetch(f"{url}/api/v1/targets"))["data"]["activeTargets"]}


def join(mesh: RunningMesh, address: str = "../shop"):
    arguments = ("--set", "profile=remote", "--set", f"values.global.remotePilotAddress={address}")
    return mesh.devmesh("up", "--runtime", "local", "--interception", "namespace", *arguments, check=False)


def status_of(mesh: RunningMesh, workload: str, url: str) -> str:
    return mesh.devmesh("exec", workload, "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", url, check=False).stdout


def page_logged(mesh: RunningMesh, workload: str) -> str:
    return "\n".join(one for one in mesh.devmesh("logs", workload, "--access").stdout.splitlines() if "/page" in one)


def test_services_of_two_projects_call_each_other_over_mtls_until_the_second_one_goes(shop, desk):
    up = join(desk)
    assert up.returncode == 0, up.stderr
    assert "is not read: the configuration is the first mesh's" in up.stderr
    assert {one["name"]: (one["ready"], one["synced"]) for one in desk.json("status")["workloads"]} == {
        "caller": (True, True),
        "reviews-v9": (True, True),
    }
    both = {one["name"] for mesh in (shop, desk) for one in mesh.json("status")["workloads"]}
    until(lambda: not PROMETHEUS or scraped(shop) == {*both, "control"})
    assert status_of(desk, "caller", "http://details:9080/page") == "200"
    shop.devmesh("wait", "--timeout", "60s")  # `up` waits for its own workloads
    assert status_of(shop, "web", "http://caller:9090/") == "200"
    # One service of two projects: the first one's workload knows that page, ours does not.
    loop = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -s -m 5 -o /dev/null -w '%{http_code} ' http://reviews:9080/page; done"
    until(lambda: set(desk.devmesh("exec", "caller", "sh", "-c", loop).stdout.split()) == {"200", "404"})
    until(lambda: "outbound|9080||details.default.svc.cluster.local" in page_logged(desk, "caller"))
    until(lambda: "inbound|9080||" in page_logged(shop, "details-v1"))
    desk.devmesh("down")
    until(lambda: not scraped(shop) & {"caller", "reviews-v9"})
    assert {one["workload"] for one in json.loads(shop.devmesh("proxy-status", "-o", "json").stdout)["proxies"]} == {
        one["name"] for one in shop.json("status")["workloads"]
    }
    assert status_of(shop, "web", "http://caller.default.svc.cluster.local:9090/") != "200"


@pytest.mark.parametrize(
    ("address", "words"),
    [("../nowhere", "there is no folder"), (".", "is this mesh itself"), ("..", "no mesh is up in")],
)
def test_what_cannot_be_joined_is_named(desk, address, words):
    refused = join(desk, address)
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "hint:" in refused.stderr


def test_a_workloads_name_is_used_once(desk):
    (desk.folder / "compose.yaml").write_text(DESK.replace("caller:", "details-v1:"))
    refused = join(desk)
    assert refused.returncode == 1
    assert "details-v1 runs in the mesh in" in refused.stderr
