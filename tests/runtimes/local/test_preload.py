"""The process that both launchers come from: it forks what it is asked for, the supervisor before all else is imported, and goes when told."""

import json
import os
import select
import socket
from pathlib import Path

import pytest

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.preload import Preload, Preloading
from devmesh.runtimes.processes import start_time, stop_all
from tests.support.waiting import until


def told(channel: socket.socket, within: float = 30) -> dict:
    assert select.select([channel], [], [], within)[0], "the launcher says nothing"
    return json.loads(channel.recv(65536))


@pytest.fixture
def files(tmp_path):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    return files


@pytest.fixture
def started():
    """What was started, and both launchers as a supervisor would have them."""
    preloading = Preloading()
    own, pods = (socket.socket(fileno=os.dup(one.fileno())) for one in preloading._ours)
    yield preloading, Preload.of(preloading._process.pid, own), pods
    preloading.give_up()
    own.close()
    pods.close()


def test_it_reports_what_it_forks_and_ends_when_told(files, started):
    preloading, launcher, _ = started
    token = files.mesh_token()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        arguments = {"directory": str(files.root / "registry"), "token_file": str(files.token)}
        request = {"name": "registry", "entry": "registry", "log": str(files.log("registry")), "arguments": arguments}
        socket.send_fds(launcher.channel, [json.dumps(request).encode()], [sock.fileno()])
        began, ready = told(launcher.channel), told(launcher.channel)
    assert (began["event"], ready) == ("started", {"event": "ready", "name": "registry"})
    assert token not in files.log("registry").read_text()
    request |= {"name": "broken", "arguments": {"token_file": "/nonexistent"}, "log": str(files.log("broken"))}
    socket.send_fds(launcher.channel, [json.dumps(request).encode()], [])
    assert told(launcher.channel)["event"] == "started"
    ended = told(launcher.channel)
    assert (ended["event"], ended["name"], ended["status"]) == ("exited", "broken", 70)
    assert "broken ends" in files.log("broken").read_text()
    launcher.end()
    preloading._process.wait()
    assert start_time(launcher.pid) is None
    launcher.end()
    forked = began["pid"]
    assert start_time(forked) is not None, "what it forked lives on"
    stop_all([(forked, start_time(forked))], grace=5)
    assert start_time(forked) is None


async def test_the_pods_launcher_goes_when_nobody_holds_its_channel(started):
    preloading, launcher, pods = started
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    await until(lambda: children.read_text() != "", seconds=30)
    (child,) = children.read_text().split()
    pods.close()
    preloading._leave()
    descriptor = os.pidfd_open(int(child))
    assert select.select([descriptor], [], [], 30)[0]
    os.close(descriptor)


def test_the_supervisor_tells_what_happens_and_keeps_no_launcher_when_it_ends(files, tmp_path):
    (tmp_path / "compose.yaml").write_text("services: {web: {image: nobody/has-this}}\n")
    preloading = Preloading()
    with preloading.supervise(
        tmp_path / "compose.yaml", {"runtime": "local", "more": "x" * 300_000}, files.log("supervisor"), files.log("launcher")
    ) as report:
        events = [json.loads(line) for line in report]
    assert events[-1]["event"] == "error"
    assert "web" in events[-1]["message"]
    assert preloading.last_words() == []
    preloading.close()
    preloading._process.wait(timeout=30)
    assert start_time(preloading._process.pid) is None


def test_one_that_was_given_up_is_gone():
    preloading = Preloading()
    pid = preloading._process.pid
    preloading.give_up()
    assert start_time(pid) is None


def test_the_supervisor_of_a_launcher_that_has_ended_tells_nothing(files, tmp_path):
    preloading = Preloading()
    preloading._process.kill()
    preloading._process.wait()
    with preloading.supervise(tmp_path / "compose.yaml", {}, files.log("supervisor"), files.log("launcher")) as report:
        assert report.read() == ""
    preloading.close()


def test_what_it_says_before_it_supervises_is_kept(files, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "devmesh").mkdir()
    (tmp_path / "devmesh" / "__init__.py").write_text("raise ImportError('half an installation')")
    monkeypatch.chdir(tmp_path)
    preloading = Preloading()
    preloading._process.wait()
    with preloading.supervise(tmp_path / "compose.yaml", {}, files.log("supervisor"), files.log("launcher")) as report:
        assert report.read() == ""
    assert "half an installation" in preloading.last_words()[-1]
    preloading.close()
