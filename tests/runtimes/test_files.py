"""What a mesh keeps, and who may read it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.files import MeshFiles, last_lines
from devmesh.runtimes.processes import start_time


@pytest.fixture
def files(tmp_path):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    return files


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_the_users_alone(files):
    token = files.mesh_token()
    files.write_state({"a": 1})
    assert {mode(path) for path in (files.root, files.logs, files.workload("w"))} == {0o700}
    assert {mode(path) for path in (files.token, files.state)} == {0o600}
    assert len(token) == 64
    assert files.mesh_token() == token, "it is made once"


def test_a_state_that_is_missing_or_damaged_is_none(files):
    assert files.read_state() is None
    files.state.write_text('{"half')
    assert files.read_state() is None
    files.write_state({"ports": {"control": 1}})
    assert files.read_state() == {"ports": {"control": 1}}


def test_a_folder_that_cannot_be_ours_is_an_error_that_says_how_to_see_whose_it_is(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    files = MeshFiles(tmp_path / ".devmesh")
    for name, work in (("mkdir", files.make), ("read_text", files.read_state)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, denied)
            with pytest.raises(DevmeshError, match="cannot be used: Permission denied") as caught:
                work()
        assert "ls -ld" in (caught.value.hint or "")


def test_the_second_supervisor_is_told_that_the_mesh_is_up(files):
    with files.lock(), pytest.raises(DevmeshError, match="already up") as caught:
        files.lock()
    assert "devmesh down" in (caught.value.hint or "")
    files.lock().close()


def test_the_last_lines_of_a_log_and_none_of_one_that_is_not_there(files):
    files.log("app").write_text("".join(f"{n}\n" for n in range(50)))
    assert last_lines(files.log("app"), 2) == ["48", "49"]
    assert last_lines(files.log("other")) == []


def test_a_folder_without_a_state_says_what_brings_a_mesh_up(files):
    with pytest.raises(DevmeshError, match=f"no mesh is up in {files.root.parent}") as caught:
        files.running_state()
    assert caught.value.hint == "devmesh up"
    files.write_state({"ports": {}})
    assert files.running_state() == {"ports": {}}


def test_the_keeper_lives_only_while_pid_and_start_time_are_both_its_own(files):
    assert not files.keeper_lives()
    own = {"pid": os.getpid(), "started": start_time(os.getpid())}
    files.write_state({"supervisor": own})
    assert files.keeper_lives()
    files.write_state({"supervisor": {**own, "started": own["started"] - 1}})
    assert not files.keeper_lives()
