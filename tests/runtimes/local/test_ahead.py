"""What is begun before the command line is read, and what becomes of it."""

import pytest

from devmesh.runtimes.local import ahead
from devmesh.runtimes.processes import start_time


@pytest.mark.parametrize(
    ("line", "environ", "engine", "likely"),
    [
        ("up", {}, False, True),
        ("up", {}, True, False),  # `auto` will take it
        ("up", {"DOCKER_HOST": "tcp://engine:2375"}, False, False),
        ("up", {"DEVMESH_RUNTIME": "local"}, True, True),
        ("up", {"DEVMESH_RUNTIME": "docker"}, False, False),
        ("up -f compose.yaml --runtime local", {"DEVMESH_RUNTIME": "docker"}, True, True),
        ("up --runtime=local", {}, True, True),
        ("up --runtime docker", {"DEVMESH_RUNTIME": "local"}, False, False),
        ("up --runtime", {"DEVMESH_RUNTIME": "local"}, True, True),  # a usage error, as will be found
        ("up --help", {}, False, False),
        ("status", {}, False, False),
        ("", {}, False, False),
    ],
)
def test_a_glance_tells_whether_a_mesh_is_brought_up_on_this_runtime(tmp_path, line, environ, engine, likely):
    path = tmp_path / "docker.sock"
    if engine:
        path.touch()
    assert ahead.is_likely(line.split(), environ, path) is likely


def test_what_was_begun_is_taken_once_and_what_is_not_taken_is_ended(monkeypatch):
    monkeypatch.setenv("DEVMESH_RUNTIME", "local")
    ahead.begin(["up"])
    first, second = ahead.take(), ahead.take()
    assert first is not second
    for one in (first, second):
        one.give_up()
    ahead.begin(["up"])
    pid = ahead._begun[0]._process.pid
    ahead.give_up()
    assert start_time(pid) is None
    assert ahead._begun == []
