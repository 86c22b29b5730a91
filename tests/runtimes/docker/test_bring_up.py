"""What `up` refuses before it starts anything."""

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.claims import PortClaims
from devmesh.runtimes.docker.bring_up import (
    FOLDER_LABEL,
    BringUp,
    compose_failed,
    could_not_start,
    ended,
    has_failed,
    own_services,
    process_json,
    refuse_others,
)
from devmesh.runtimes.docker.engine import Container
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.docker.project import render, without_waiting
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.waiting import Lack
from tests.runtimes.docker.layouts import layout_from

SHOP = "name: shop\nservices:\n  web: {image: web, expose: ['9080']}\n"


def container(folder: str) -> Container:
    return Container("web", "id", "shop-web-1", "running", "", 0, "", 0, "", {FOLDER_LABEL: folder}, "", "no", {})


FOLDER = Path("/srv/shop/.devmesh/docker")


def test_a_project_of_the_same_name_from_elsewhere_is_left_alone():
    with pytest.raises(DevmeshError, match="'shop' already, from /elsewhere/shop") as refused:
        refuse_others("shop", FOLDER, [container("/elsewhere/shop")])
    assert "docker compose --project-name shop down" in str(refused.value.hint)


def test_a_mesh_of_the_same_name_from_elsewhere_is_named_by_its_own_folder():
    with pytest.raises(DevmeshError, match=r"already, from /elsewhere/shop$") as refused:
        refuse_others("shop", FOLDER, [container("/elsewhere/shop/.devmesh/docker")])
    assert "devmesh down in /elsewhere/shop," in str(refused.value.hint)


def test_what_an_earlier_up_of_this_folder_left_is_taken_over():
    refuse_others("shop", FOLDER, [container(str(FOLDER))])
    refuse_others("shop", FOLDER, [])


class NewEngine:
    """Which has no containers yet."""

    def __init__(self, identity: str):
        self.identity = identity

    def containers(self, project: str) -> list[Container]:
        return []


def coming_up(folder: Path, engine: str, ports: PortClaims) -> BringUp:
    bring_up = object.__new__(BringUp)  # without an engine
    bring_up.compose_file, bring_up.files, bring_up.engine, bring_up._ports = (
        folder / "compose.yaml",
        MeshFiles(folder),
        NewEngine(engine),
        ports,
    )
    return bring_up


def test_one_project_of_one_engine_is_brought_up_once_at_a_time(tmp_path: Path):
    engine, project = str(uuid.uuid4()), "shop" * 40
    with PortClaims() as first, PortClaims() as second, PortClaims() as third:
        coming_up(tmp_path / "one", engine, first)._have_project(project)
        with pytest.raises(DevmeshError, match="being brought up on this engine, or is up, from another folder") as refused:
            coming_up(tmp_path / "two", engine, second)._have_project(project)
        assert "another name: at the top of compose.yaml" in str(refused.value.hint)
        coming_up(tmp_path / "two", str(uuid.uuid4()), second)._have_project(project)
        coming_up(tmp_path / "two", engine, second)._have_project("desk")
        assert first.inheritance, "a keeper has it after the up"
        first.close()
        coming_up(tmp_path / "two", engine, third)._have_project(project)


async def test_apps_are_waited_for_as_long_as_up_was_told(tmp_path: Path):
    bring_up = object.__new__(BringUp)  # without an engine
    bring_up.settings, bring_up._tell = {"wait_timeout": 0.0}, lambda _: None
    bring_up._last_lines = lambda *_: []

    async def look() -> list[Lack]:
        return [Lack("web", "its app takes no connections", "web")]

    with pytest.raises(DevmeshError, match="not everything was ready after 0 s"):
        await bring_up._until_nothing_lacks(layout_from(tmp_path, SHOP), look)


JOB = "name: shop\nservices:\n  web: {image: x, expose: ['80'], depends_on: {db: {condition: service_healthy}}}\n  db: {image: x}\n  plain: {image: x, x-devmesh: {inject: false}}\n"


def test_the_mesh_is_started_before_any_app(tmp_path: Path):
    layout = layout_from(tmp_path, JOB)
    names = own_services(render(layout))
    assert {"consul", "ca", "control", "jaeger", "istio-ingressgateway", "web-pod", "web-sidecar", "db-pod", "db-sidecar"} == set(names)


def test_apps_are_started_when_the_sidecars_are_known_to_be_ready_and_wait_for_each_other_only(tmp_path: Path):
    layout = layout_from(tmp_path, JOB)
    rendered = render(layout)
    starting = without_waiting(rendered, layout.topology)["services"]
    assert starting["web"]["depends_on"] == {"db": {"condition": "service_healthy"}, "web-sidecar": {"condition": "service_started"}}
    assert rendered["services"]["web"]["depends_on"]["web-sidecar"] == {"condition": "service_healthy"}, "by itself it waits for the check"
    assert {name: {**one, "depends_on": None} for name, one in starting.items()} == {
        name: {**one, "depends_on": None} for name, one in rendered["services"].items()
    }


@pytest.mark.parametrize(
    ("role", "state", "health", "ready"),
    [
        ("sidecar", "running", "starting", True),
        ("gateway", "running", "starting", True),
        ("sidecar", "running", "unhealthy", False),
        ("sidecar", "exited", "starting", False),
        ("app", "running", "starting", False),
        ("app", "running", "healthy", True),
    ],
)
def test_a_sidecar_whose_check_has_not_run_yet_is_not_called_unready(role, state, health, ready):
    one = replace(container(""), labels={ROLE_LABEL: role}, state=state, health=health)
    assert process_json(one)["ready"] is ready


def test_the_state_says_of_apps_what_their_healthchecks_said():
    one = replace(container(""), labels={ROLE_LABEL: "app"}, health="unhealthy", failures=3, check_output="no disk")
    assert process_json(one)["health"] == {"status": "unhealthy", "failures": 3, "output": "no disk"}
    assert "health" not in process_json(replace(one, health=""))
    assert "health" not in process_json(replace(one, labels={ROLE_LABEL: "sidecar"}))


def test_only_an_app_that_ended_is_a_job_that_is_done():
    labels = {ROLE_LABEL: "app", WORKLOAD_LABEL: "web"}
    found = [replace(container(""), labels=labels, state=state) for state in ("running", "exited")]
    assert ended(found) == {"web"}
    assert ended([replace(container(""), labels={ROLE_LABEL: "sidecar", WORKLOAD_LABEL: "web"}, state="exited")]) == frozenset()


@pytest.mark.parametrize(
    ("line", "hint"),
    [("Error response from daemon: mkdir /x: no space left on device", "docker system prune"), ("Error: port taken", "see ")],
)
def test_what_compose_could_not_start_is_told_with_what_to_do(tmp_path: Path, line: str, hint: str):
    log = tmp_path / "compose.log"
    log.write_text(f" Container a  Starting\n{line}\n")
    error = compose_failed("up", log)
    assert error.message == f"docker compose up failed:\n{line}"
    assert hint in (error.hint or "")


def test_whose_container_could_not_be_started_is_named(tmp_path: Path):
    refused = replace(container(""), state="created", error='exec: "nosuch": not found')
    assert could_not_start([refused, container(""), replace(container(""), state="exited")]) == ["web"]
    log = tmp_path / "compose.log"
    log.write_text('Error response from daemon: exec: "nosuch": not found\n')
    assert compose_failed("up", log, ["web"]).message.startswith("docker compose up failed at web:\nError response")


@pytest.mark.parametrize(
    ("state", "exit_code", "failed"),
    [("running", 0, False), ("exited", 0, False), ("exited", 3, True), ("restarting", 1, True), ("restarting", 0, True), ("dead", 0, True)],
)
def test_an_app_that_ends_badly_or_again_and_again_has_failed(state: str, exit_code: int, *, failed: bool):
    one = replace(container(""), labels={ROLE_LABEL: "app"}, state=state, exit_code=exit_code)
    assert has_failed(one) is failed
    assert not has_failed(replace(one, labels={ROLE_LABEL: "sidecar"})), "the keeper's business"
