"""A command in a pod: the app's environment over the user's, signals as a shell has them, and no life after us."""

import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.local.enter import enter

# Whoever is asked to enter runs the command where it is, and says how it was asked.
NSENTER = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --wd=*) shift; break;; esac
  shift
done
"$@"
"""


@pytest.fixture
def entering(tmp_path):
    """`devmesh exec` as a process of its own, on a machine whose nsenter stays where it is."""
    tool = tmp_path / "nsenter"
    tool.write_text(NSENTER)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    file = tmp_path / "environment.json"
    file.write_text(json.dumps({"STAR_COLOR": "red", "HOME": "/app"}))
    program = (
        "import os, sys; from pathlib import Path; from devmesh.runtimes.local.enter import enter;"
        "enter('web', {'init_pid': os.getpid()}, sys.argv[2:], Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": "/home/user", "TERM": "xterm"}

    def start(*argv):
        command = [sys.executable, "-c", program, str(file), *argv]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def test_a_command_has_the_apps_environment_over_the_users(entering):
    with entering("sh", "-c", "echo $STAR_COLOR $HOME $TERM") as process:
        assert process.stdout.read() == "red /app xterm\n"


def test_a_pipe_that_is_closed_ends_a_command_as_in_a_shell(entering):
    with entering("sh", "-c", "grep SigIgn /proc/self/status") as process:
        ignored = int(process.stdout.read().split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1
    assert not ignored >> (signal.SIGXFSZ - 1) & 1


def test_who_ends_devmesh_exec_ends_its_command(entering):
    with entering("sh", "-c", "trap 'echo ended; kill $!; exit' TERM; echo begun; sleep 60 & wait") as process:
        assert process.stdout.readline() == "begun\n"
        process.kill()
        assert process.stdout.readline() == "ended\n"


@pytest.mark.parametrize(
    ("workload", "said", "hint"),
    [
        ({"interception": "proxy"}, "runs in no pod", "--interception namespace"),
        ({"interception": "proxy", "gateway": True}, "is a gateway", "devmesh logs web"),
        ({"init_pid": 2**22 + 1}, "is gone", "devmesh logs web-pod"),
    ],
)
def test_without_a_pod_there_is_nothing_to_enter(workload, said, hint):
    with pytest.raises(DevmeshError, match=said) as error:
        enter("web", workload, ["true"])
    assert hint in error.value.hint
