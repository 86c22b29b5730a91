"""Processes that die, meshes side by side, and nothing left behind."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from devmesh.runtimes.processes import start_time
from tests.e2e.conftest import RunningMesh, copy_sample, running, until
from tests.support.require import tool

pytestmark = pytest.mark.e2e
# Processes by their pids; containers end and come back in test_docker.py.
local = pytest.mark.parametrize("bookinfo", ["namespace", "proxy"], indirect=True, scope="session")


@local
@pytest.mark.parametrize("part", ["control", "ca", "registry", "collector", "reviews-v1-sidecar", "details-v1"])
def test_a_killed_part_is_restarted_and_everything_is_in_sync_again(bookinfo, part):
    killed = bookinfo.pid(part)
    os.kill(killed, signal.SIGKILL)
    until(lambda: bookinfo.pid(part) != killed)
    bookinfo.devmesh("wait", "--timeout", "30s")
    assert "PublisherA" in bookinfo.page()


@local
@pytest.mark.parametrize("part", ["control", "ca", "registry"])
def test_requests_keep_working_while_a_part_of_the_control_side_is_dead(bookinfo, part):
    os.kill(bookinfo.pid(part), signal.SIGKILL)
    for _ in range(5):
        assert "PublisherA" in bookinfo.page()
    bookinfo.devmesh("wait", "--timeout", "30s")


def test_up_twice_says_so(bookinfo):
    done = bookinfo.devmesh("up", check=False)
    assert done.returncode == 1
    assert "already up" in done.stderr
    assert "hint:" in done.stderr


def test_down_with_nothing_up_says_so_and_succeeds(tmp_path):
    mesh = RunningMesh(copy_sample("bookinfo", tmp_path / "idle"))
    assert "nothing is up" in mesh.devmesh("down").stderr


@local
def test_two_meshes_run_side_by_side_and_down_leaves_nothing(bookinfo, tmp_path):
    other = RunningMesh(copy_sample("bookinfo", tmp_path / "second"))
    other.up()
    try:
        assert other.gateway != bookinfo.gateway
        assert "PublisherA" in other.page()
        assert "PublisherA" in bookinfo.page()
        pids = [(one["pid"], one["started"]) for one in other.state()["processes"]]
    finally:
        other.devmesh("down")
    assert [pid for pid, started in pids if start_time(pid) == started] == []
    assert not (other.folder / ".devmesh" / "state.json").exists()


def test_what_a_killed_supervisor_left_serves_on_and_is_stopped_by_down(tmp_path):
    mesh = RunningMesh(copy_sample("bookinfo", tmp_path / "orphaned"))
    mesh.up()
    state = mesh.state()
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    until(lambda: start_time(state["supervisor"]["pid"]) != state["supervisor"]["started"])
    try:
        assert "PublisherA" in mesh.page()
        with running(copy_sample("bookinfo", tmp_path / "second")) as second:  # the addresses of what still serves are not its own
            assert "PublisherA" in second.page()
    finally:
        mesh.devmesh("down")
    assert [one["name"] for one in state["processes"] if start_time(one["pid"]) == one["started"]] == []


def test_an_app_that_exits_at_start_is_named_with_its_last_words_and_the_rest_runs(tmp_path):
    folder = copy_sample("bookinfo", tmp_path / "broken")
    (folder / "apps" / "details.py").write_text("raise SystemExit('no database here')\n")
    mesh = RunningMesh(folder)
    done = mesh.devmesh("up", check=False)
    try:
        assert done.returncode == 1
        assert "details-v1 exits at start" in done.stderr
        assert "no database here" in done.stderr
        waited = mesh.devmesh("wait", "--timeout", "1s", check=False)
        assert waited.returncode == 1
        assert "  details-v1: ended with status 1\nthe last lines of details-v1:\n" in waited.stderr
        assert "no database here\n\nhint: devmesh logs details-v1" in waited.stderr
        mesh.gateway = mesh.state()["gateway_url"]
        assert "Sorry, product details are currently unavailable" in mesh.page()
    finally:
        mesh.devmesh("down")


@local
def test_a_port_in_use_names_the_port(tmp_path, bookinfo):
    taken = int(bookinfo.gateway.rpartition(":")[2])
    folder = copy_sample("bookinfo", tmp_path / "busy")
    compose = folder / "compose.yaml"
    compose.write_text(
        compose.read_text().replace("  details-v1:\n    <<: *app\n", f'  details-v1:\n    <<: *app\n    ports: ["{taken}:9080"]\n')
    )
    done = RunningMesh(folder).devmesh("up", check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{taken}" in done.stderr
    assert not Path(folder / ".devmesh" / "state.json").exists()


def test_a_registry_that_comes_back_empty_changes_nothing_in_force_and_every_command_says_so(tmp_path):
    with running(copy_sample("bookinfo", tmp_path / "lost")) as mesh:
        with mesh.away("registry"):  # or it would write them anew
            for file in (mesh.folder / ".devmesh" / "registry").iterdir():
                file.unlink()
        until(lambda: "the registry came back empty" in (mesh.json("status")["problem"] or ""))
        assert "PublisherA" in mesh.page()
        for command in (["get"], ["apply", "-f", "tasks/virtual-service-all-v1.yaml"], ["fault", "inject", "ratings", "--abort", "503"]):
            done = mesh.devmesh(*command, check=False)
            assert done.returncode == 1
            assert "the registry came back empty" in done.stderr
            assert "hint: devmesh down, then devmesh up" in done.stderr
        until(lambda: "registered reviews-v1" in (mesh.folder / ".devmesh" / "logs" / "control.log").read_text().rpartition("lost")[2])
        mesh.devmesh("down")
        mesh.up()
        assert mesh.json("status")["problem"] is None


def test_a_consul_on_the_path_is_the_registry_and_lists_every_workload(tmp_path, monkeypatch):
    consul = tool("consul", "consul")
    monkeypatch.setenv("PATH", f"{consul.parent}{os.pathsep}{os.environ['PATH']}")
    with running(copy_sample("bookinfo", tmp_path / "consul")) as mesh:
        url = mesh.json("status")["urls"]["mesh"]["consul"]
        token = (mesh.folder / ".devmesh" / "token").read_text().strip()

        def ask(path: str, *arguments: str) -> Any:
            done = subprocess.run(["curl", "-s", *arguments, f"{url}{path}"], capture_output=True, text=True, check=True)
            return orjson.loads(done.stdout)

        allowed = ("-H", f"X-Consul-Token: {token}")
        assert ask("/v1/agent/self", *allowed)["Config"]["Server"]
        assert ask("/v1/catalog/services") == {}, "without a token Consul lists nothing"
        found = {
            entry["Service"]["ID"]: (entry["Service"]["Meta"]["version"], {check["Status"] for check in entry["Checks"]})
            for entry in ask("/v1/health/service/reviews", *allowed)
        }
        assert found == {f"reviews-v{n}": (f"v{n}", {"passing"}) for n in (1, 2, 3)}
        assert "PublisherA" in mesh.page()
        mesh.devmesh("apply", "-f", "tasks/virtual-service-all-v1.yaml", "-f", "tasks/destination-rule-all.yaml")
        pids = [(one["pid"], one["started"]) for one in mesh.state()["processes"]]
    assert [pid for pid, started in pids if start_time(pid) == started] == []


def test_up_refuses_rules_that_refer_to_nothing_with_their_place_and_starts_nothing(tmp_path):
    folder = copy_sample("bookinfo", tmp_path / "astray")
    rule = (folder / "tasks" / "virtual-service-all-v1.yaml").read_text()
    (folder / "mesh" / "rules.yaml").write_text(rule)
    done = RunningMesh(folder).devmesh("up", check=False)
    assert done.returncode == 1
    assert "4 errors in the mesh's resources" in done.stderr
    assert "rules.yaml:" in done.stderr
    assert "Referenced host+subset in destinationrule not found" in done.stderr
    assert not (folder / ".devmesh" / "state.json").exists()
    (folder / "mesh" / "subsets.yaml").write_text((folder / "tasks" / "destination-rule-all.yaml").read_text())
    mesh = RunningMesh(folder)
    try:
        assert "[IST0173]" in mesh.devmesh("up").stderr, "a warning is shown and stops nothing"
    finally:
        mesh.devmesh("down")
