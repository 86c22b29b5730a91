"""A database with a healthcheck, a migration, and what waits for both: an ordinary compose file without an engine."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from devmesh.runtimes.processes import start_time
from tests.e2e.conftest import DEVMESH, RunningMesh, running, until
from tests.support.require import pods

pytestmark = pytest.mark.e2e
# Healthy at the third look, whoever looks; each app writes down when it starts and when it is stopped.
COMPOSE = """\
services:
  web:
    command: [python, app.py, web, "8080"]
    expose: ["8080"]
    depends_on: [api]
  api:
    command: [python, app.py, api, "7070"]
    expose: ["7070"]
    depends_on:
      db: {condition: service_healthy, restart: true}
      migrate: {condition: service_completed_successfully}
  migrate:
    command: [python, job.py]
    depends_on: {db: {condition: service_healthy}}
  db:
    command: [python, app.py, db, "5000"]
    expose: ["5000"]
    environment: {DATA: here}
    healthcheck: {test: "echo looked $$DATA; echo x >>looks; test $(wc -l <looks) -ge 3", interval: 300ms}
"""
APP = """\
import http.server, os, signal, sys
def journal(what):
    with open("journal", "a") as file:
        file.write(f"{what} {sys.argv[1]}\\n")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"here")
def stop(*_):
    journal("stop")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
server = http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", sys.argv[2]))), Handler)
journal("start")
server.serve_forever()
"""
JOB = """\
import urllib.request
with urllib.request.urlopen("http://db:5000/") as answer, open("journal", "a") as file:
    file.write(f"migrate has {answer.read().decode()}\\n")
"""
STARTED = ["start db", "migrate has here", "start api", "start web"]


@pytest.fixture(params=["namespace", "proxy"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> RunningMesh:
    if request.param == "namespace":
        pods()
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "job.py").write_text(JOB)
    return RunningMesh(tmp_path, interception=request.param)


def journal(mesh: RunningMesh) -> list[str]:
    return (mesh.folder / "journal").read_text().splitlines()


def edit(mesh: RunningMesh, old: str, new: str) -> None:
    file = mesh.folder / "compose.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def failing(mesh: RunningMesh, *arguments: str) -> str:
    """What an `up` that fails says, and leaves running."""
    done = mesh.devmesh("up", "--interception", mesh.interception, *arguments, check=False)
    assert done.returncode == 1
    return done.stderr


def alive(mesh: RunningMesh) -> list[str]:
    return [one["name"] for one in mesh.state()["processes"] if one["pid"] and start_time(one["pid"]) == one["started"]]


def test_each_starts_when_what_it_waits_for_is_so_and_down_stops_them_the_other_way_round(shop):
    with running(shop.folder, shop.interception) as mesh:
        assert journal(mesh)[:2] == STARTED[:2]
        assert sorted(journal(mesh)[2:]) == STARTED[2:], "a process that has been started has not yet done anything"
        states = {one["name"]: one for one in mesh.json("status")["workloads"]}
        assert states["db"]["healthcheck"] == {"status": "healthy", "failures": 0, "output": "looked here"}
        assert states["migrate"]["done"]
        mesh.devmesh("wait", "--timeout", "1m")
    assert journal(shop)[len(STARTED) :] == ["stop web", "stop api", "stop db"]


def test_a_restart_takes_along_who_asked_for_that_and_a_start_whom_it_depends_on(shop):
    with running(shop.folder, shop.interception) as mesh:
        assert mesh.devmesh("restart", "db").stderr.strip() == "restart: db, api"
        assert journal(mesh)[len(STARTED) :] == ["stop db", "start db", "stop api", "start api"]
        for name in ("web", "api", "db"):
            mesh.devmesh("stop", name)
        done = len(journal(mesh))
        assert mesh.devmesh("start", "web").stderr.strip() == "start: db, api, web"
        assert journal(mesh)[done:][:2] == ["start db", "start api"]
        until(lambda: "start web" in journal(mesh)[done:])
        supervisor = mesh.state()["supervisor"]
        os.kill(supervisor["pid"], signal.SIGKILL)
        until(lambda: start_time(supervisor["pid"]) is None)
        mesh.devmesh("down")
        assert journal(mesh)[done + 3 :] == ["stop web", "stop api", "stop db"], "as with a supervisor"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "test $(wc -l <looks) -ge 3",
            "echo no disk >&2; exit 1",
            "db is unhealthy: looked here\nno disk; api, migrate, web were not started",
        ),
        ("python, job.py", "sh, -c, 'echo no schema; exit 3'", "migrate didn't complete successfully: exit 3; api, web were not started"),
        ("python, job.py", "no-such-program", "migrate didn't complete successfully: exit 127; api, web were not started"),
    ],
    ids=["unhealthy", "a job that fails", "a job that cannot be started"],
)
def test_a_dependency_that_fails_ends_up_with_its_name_and_last_words_and_the_rest_runs(shop, old, new, said):
    edit(shop, old, new)
    error = failing(shop)
    try:
        assert "error: dependency failed to start: " in error
        who, _, others = said.partition("; ")
        assert who in error
        assert sorted(others.removesuffix(" were not started").split(", ")) == sorted(
            error.split(f"{who}; ")[1].split(" were not")[0].split(", ")
        )
        assert "The rest of the mesh runs." in error
        assert "db" in alive(shop)
        states = {one["name"]: one for one in shop.json("status")["workloads"]}
        assert states["web"]["waits"].startswith("dependency failed to start: ")
        assert shop.devmesh("start", "--no-deps", "web").stderr.strip() == "start: web"
        assert "start web" in journal(shop)
    finally:
        shop.devmesh("down")


def waiting(mesh: RunningMesh, until_said: Callable[[str], bool]) -> subprocess.Popen[str]:
    """An `up` that waits for a job that never ends; it has said so."""
    edit(mesh, "python, job.py", "sleep, '600'")
    arguments = [DEVMESH, "up", "--runtime", "local", "--interception", mesh.interception]
    process = subprocess.Popen(arguments, cwd=mesh.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    assert any(until_said(line) for line in process.stderr), "it ended"
    return process


def test_down_while_somebody_waits_ends_up_and_leaves_nothing(shop):
    process = waiting(shop, lambda line: "apps: waiting for api (for migrate to complete), web (for api to start)" in line)
    pids = [(one["pid"], one["started"]) for one in shop.state()["processes"] if one["pid"]]
    shop.devmesh("down")
    assert process.wait(60) == 1
    assert "the mesh was taken down before it was ready" in process.stderr.read()
    process.stderr.close()
    assert [pid for pid, started in pids if start_time(pid) == started] == []


def test_stop_start_and_a_killed_supervisor_while_somebody_waits(shop):
    process = waiting(shop, lambda line: "waiting for api (for" in line)
    assert shop.devmesh("start", "--no-deps", "api").stderr.strip() == "start: api"
    assert process.wait(60) == 0, "nobody waits any more"
    process.stderr.close()
    assert sorted(journal(shop)[-2:]) == ["start api", "start web"]
    shop.devmesh("down")
    edit(shop, "sleep, '600'", "python, job.py")
    process = waiting(shop, lambda line: "waiting for api (for" in line)
    os.kill(shop.state()["supervisor"]["pid"], signal.SIGKILL)
    assert process.wait(60) == 1
    process.stderr.close()
    assert "migrate" in alive(shop)
    pids = [(one["pid"], one["started"]) for one in shop.state()["processes"] if one["pid"]]
    shop.devmesh("down")
    until(lambda: not [pid for pid, started in pids if start_time(pid) == started])


def test_a_healthcheck_that_forks_and_hangs_leaves_nothing_behind(shop):
    fork = "setsid sh -c 'echo $$$$ >>pids; setsid sleep 600 & echo $$! >>pids; wait' & sleep 600"
    edit(
        shop, '"echo looked $$DATA; echo x >>looks; test $(wc -l <looks) -ge 3", interval: 300ms', f'"{fork}", interval: 300ms, timeout: 1s'
    )
    error = failing(shop)
    try:
        assert "db is unhealthy: Health check exceeded timeout (1s)" in error
    finally:
        shop.devmesh("down")
    if shop.interception == "proxy":  # in a pod, numbers of processes are its own, and all of it ends
        assert [pid for pid in map(int, (shop.folder / "pids").read_text().split()) if start_time(pid)] == []


def test_what_cannot_become_healthy_is_named_with_its_line_before_anything_starts(shop):
    file = shop.folder / "compose.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "healthcheck" not in line))
    error = failing(shop)
    assert "compose.yaml:10:7: api waits for db to be healthy, and db has no healthcheck configured" in error
    assert not (shop.folder / "journal").exists()
