"""One run of a healthcheck's test, done by the process that does them where there are no pods."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from devmesh.pods.check import MAX_OUTPUT, MAX_RUN, TIMED_OUT
from devmesh.runtimes.processes import start_time
from tests.support.waiting import until

LIMIT = 30  # seconds that a test waits for what must come
FORKS = "setsid sh -c 'echo $$ >>pids; setsid sleep 600 & echo $! >>pids; wait' & echo partial; sleep 600"


@contextmanager
def checker():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LIMIT)
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "devmesh.pods.check", str(theirs.fileno())], pass_fds=(theirs.fileno(),))
    try:
        yield ours
    finally:
        ours.close()
        process.wait(LIMIT)


def ask(channel, argv, cwd, timeout=LIMIT):
    run = {"id": 1, "argv": argv, "environment": {**os.environ, "COLOUR": "green"}, "cwd": str(cwd), "timeout": timeout}
    channel.send(json.dumps(run).encode())


def check(argv, cwd, timeout=LIMIT):
    """(status, output)"""
    with checker() as channel:
        ask(channel, argv, cwd, timeout)
        event = json.loads(channel.recv(MAX_RUN))
    assert (event["event"], event["id"]) == ("checked", 1)
    return event["status"], event["output"]


@pytest.mark.parametrize(
    ("argv", "outcome"),
    [
        (["true"], (0, "")),
        (["sh", "-c", "echo no disk >&2; exit 3"], (3, "no disk")),
        (["sh", "-c", "kill -9 $$"], (-9, "")),
        (["nowhere"], (127, "cannot start nowhere: No such file or directory")),
        (["sh", "-c", "echo $COLOUR; cat here"], (0, "green\nhello")),
    ],
    ids=["good", "bad", "killed", "not found", "its environment and directory"],
)
def test_an_outcome_is_how_it_ended_and_what_it_said(tmp_path, argv, outcome):
    (tmp_path / "here").write_text("hello\n")
    assert check(argv, tmp_path) == outcome


def test_a_test_that_says_a_lot_ends_and_its_beginning_is_kept(tmp_path):
    status, said = check(["sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x; exit 1"], tmp_path)
    assert (status, said) == (1, "x" * MAX_OUTPUT + "...")


def left(folder: Path):
    return [pid for pid in map(int, (folder / "pids").read_text().split()) if start_time(pid)]


def test_what_hangs_is_killed_in_time_with_whatever_it_has_started(tmp_path):
    assert check(["sh", "-c", FORKS], tmp_path, 1) == (TIMED_OUT, "Health check exceeded timeout (1s): partial")
    assert left(tmp_path) == []


def test_what_a_test_leaves_running_ends_with_it(tmp_path):
    assert check(["sh", "-c", "setsid sleep 600 & echo $! >pids"], tmp_path) == (0, "")
    assert left(tmp_path) == []


async def test_what_runs_when_the_supervisor_dies_ends_too(tmp_path):
    with checker() as channel:
        ask(channel, ["sh", "-c", FORKS], tmp_path)
        await until(lambda: (tmp_path / "pids").exists() and len(left(tmp_path)) == 2, LIMIT)
    assert left(tmp_path) == []
