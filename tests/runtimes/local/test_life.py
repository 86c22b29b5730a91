"""A supervisor's `up` as its life has it: it comes to its end, or is ended."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.life import _unexpected, _up
from tests.support.virtual_time import in_virtual_time, now, settled


class ScriptedSupervisor:
    """One whose `up` takes so many seconds, and may fail then."""

    def __init__(self, seconds: float, fails: bool = False) -> None:
        self.stopping, self.up_ended = asyncio.Event(), asyncio.Event()
        self._seconds, self._fails = seconds, fails
        self.cancelled = False

    async def up(self, _number: int) -> None:
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._fails:
            raise DevmeshError("web does not become ready", "devmesh logs web")


@in_virtual_time
async def test_a_down_ends_an_up_at_once_and_says_so():
    supervisor = ScriptedSupervisor(30)
    going = asyncio.create_task(_up(supervisor, 1))
    await settled()
    supervisor.stopping.set()
    with pytest.raises(DevmeshError, match="taken down before it was ready"):
        await going
    assert (now() < 1, supervisor.cancelled, supervisor.up_ended.is_set()) == (True, True, True)


@in_virtual_time
async def test_an_up_that_comes_to_its_end_is_left_alone():
    supervisor = ScriptedSupervisor(3)
    await _up(supervisor, 1)
    assert (now(), supervisor.cancelled, supervisor.up_ended.is_set()) == (3, False, True)


@in_virtual_time
async def test_what_an_up_fails_with_is_passed_on():
    supervisor = ScriptedSupervisor(3, fails=True)
    with pytest.raises(DevmeshError, match="does not become ready"):
        await _up(supervisor, 1)
    assert supervisor.up_ended.is_set()


PROGRAM = """
import socket, sys
from pathlib import Path
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.life import live

compose = Path(sys.argv[1])
files = MeshFiles.of(compose)
files.make()
ours, theirs = socket.socketpair()
ours.sendall(b"{}\\n")
ours.close()
with files.lock():
    sys.exit(live(compose, theirs, [(2**22, socket.socketpair()[0])], 0.0))
"""


def test_a_supervisor_whom_nobody_hears_any_more_ends_with_its_status_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "compose.yaml")], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "state.json"), ("{root} cannot be written to: No space left on device", "df -h {root}", 1)),
        (OSError(errno.EPIPE, "Broken pipe"), ("BrokenPipeError: [Errno 32] Broken pipe", "see {root}/logs/supervisor.log", 70)),
    ],
    ids=["a full disk", "anything else"],
)  # fmt: skip
def test_a_disk_that_is_full_is_the_users_to_mend_and_what_nobody_expected_is_ours(tmp_path, error, said):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    told = _unexpected(error, files)
    message, hint, status = said
    assert told == {"message": message.format(root=files.root), "hint": hint.format(root=files.root), "status": status}
