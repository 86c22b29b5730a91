"""Processes that die, meshes side by side, and nothing left behind."""

import os
import signal
from pathlib import Path

import pytest

from devmesh.runtimes.local.processes import start_time
from tests.e2e.conftest import RunningMesh, copy_sample, until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("part", ["control", "ca", "registry", "collector", "reviews-v1-sidecar", "details-v1"])
def test_a_killed_part_is_restarted_and_everything_is_in_sync_again(bookinfo, part):
    killed = bookinfo.pid(part)
    os.kill(killed, signal.SIGKILL)
    until(lambda: bookinfo.pid(part) != killed)
    bookinfo.devmesh("wait", "--timeout", "30s")
    assert "PublisherA" in bookinfo.page()


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
    assert "PublisherA" in mesh.page()
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
        mesh.gateway = mesh.state()["gateway_url"]
        assert "Sorry, product details are currently unavailable" in mesh.page()
    finally:
        mesh.devmesh("down")


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
