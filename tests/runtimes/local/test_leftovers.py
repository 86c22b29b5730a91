"""What a killed supervisor left is stopped by pid and start time, and nothing else is."""

import subprocess
import sys

import pytest

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.leftovers import clean_up
from devmesh.runtimes.processes import start_time

# Writes its name when it is told to stop.
STOPPING = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("on", flush=True)
signal.sigwait([signal.SIGTERM])
print(sys.argv[1], file=open(sys.argv[2], "a"))
"""


@pytest.fixture
def files(tmp_path):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    return files


@pytest.fixture
def left():
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    yield process
    process.kill()
    process.communicate()


def state(pid: int, started: int | None) -> dict:
    return {
        "processes": [{"name": "web", "kind": "app", "pid": pid, "started": started}],
        "launcher": None,
        "pod_launcher": {"pid": 0, "started": 0},
        "supervisor": None,
    }


def test_with_no_state_there_is_nothing_to_stop(files):
    assert clean_up(files) is False


def test_what_runs_on_is_stopped_and_the_state_goes(files, left):
    files.write_state(state(left.pid, start_time(left.pid)))
    assert clean_up(files) is True
    assert start_time(left.pid) is None
    assert files.read_state() is None


def test_what_runs_on_is_stopped_in_order(files, tmp_path):
    said = tmp_path / "said"
    programs = {name: subprocess.Popen([sys.executable, "-c", STOPPING, name, said], stdout=subprocess.PIPE, text=True,
                                       start_new_session=True) for name in ("db-sidecar", "db", "ca", "web")}  # fmt: skip
    assert {one.stdout.readline() for one in programs.values()} == {"on\n"}
    kinds = {"db-sidecar": "sidecar", "ca": "ours"}
    left = [
        {"name": name, "kind": kinds.get(name, "app"), "pid": one.pid, "started": start_time(one.pid)} for name, one in programs.items()
    ]
    files.write_state({"processes": left, "stop_order": [["web", "gone"], ["db"]]})
    assert clean_up(files) is True
    assert said.read_text().split() == ["web", "db", "db-sidecar", "ca"]
    for one in programs.values():
        one.communicate()


def test_a_pid_that_somebody_else_has_by_now_is_left_alone(files, left):
    files.write_state(state(left.pid, 1))
    assert clean_up(files) is False
    assert start_time(left.pid) is not None


def test_what_a_launcher_has_forked_and_told_to_nobody_is_stopped_with_it(files):
    launcher = subprocess.Popen(["sh", "-c", "setsid sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    child = int(launcher.stdout.readline())
    known = {"pid": launcher.pid, "started": start_time(launcher.pid)}
    files.write_state({**state(0, 0), "launcher": known})
    assert clean_up(files) is True
    assert [start_time(pid) for pid in (launcher.pid, child)] == [None, None]
    launcher.communicate()
