"""`up` as its command line sees it: what the supervisor says until it is done, and what is said to who does not wait for that."""

import asyncio
import io
import json
import subprocess
import sys

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local import ahead
from devmesh.runtimes.local.runtime import LocalRuntime
from devmesh.runtimes.processes import start_time
from devmesh.runtimes.runtime import LogQuery


class Interrupted(io.StringIO):
    """What comes from the supervisor when somebody presses Ctrl-C after its first line."""

    def __next__(self):
        if line := self.readline():
            return line
        raise KeyboardInterrupt


class Left(io.StringIO):
    """Knows what nobody had read when it was closed."""

    def close(self):
        self.left = self.read()
        super().close()


class ScriptedLaunchers:
    def __init__(self, said):
        self.said, self.closed = said, False

    def supervise(self, *_):
        return self.said

    def last_words(self):
        return ["out of memory"]

    def close(self):
        self.closed = True


def up(tmp_path, monkeypatch, said):
    """What was told; the exception of `up` follows."""
    told = []
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    launchers = ScriptedLaunchers(said)
    monkeypatch.setattr(ahead, "take", lambda: launchers)
    try:
        LocalRuntime(tmp_path / "compose.yaml", files).up({}, told.append)
    except (DevmeshError, KeyboardInterrupt) as error:
        return told, error
    finally:
        assert launchers.closed
    return told, None


def lines(*events):
    return "".join(json.dumps(one) + "\n" for one in events)


def test_up_returns_when_the_supervisor_is_done(tmp_path, monkeypatch):
    told, error = up(tmp_path, monkeypatch, io.StringIO(lines({"event": "phase"}, {"event": "done"}, {"event": "late"})))
    assert ([one["event"] for one in told], error) == (["phase", "done"], None)


def test_who_interrupts_up_is_told_that_the_mesh_goes_on_and_what_to_do(tmp_path, monkeypatch):
    told, error = up(tmp_path, monkeypatch, Interrupted(lines({"event": "phase"})))
    assert isinstance(error, KeyboardInterrupt)
    assert told[-1]["message"] == "interrupted: the mesh goes on coming up. hint: devmesh wait, or devmesh down"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (lines({"event": "error", "message": "no", "hint": "mend"}), "no"),
        ("", "the supervisor ended before the mesh was ready:\nout of memory"),
    ],
)
def test_what_went_wrong_is_raised(tmp_path, monkeypatch, said, message):
    _, error = up(tmp_path, monkeypatch, io.StringIO(said))
    assert isinstance(error, DevmeshError)
    assert error.message.startswith(message)


@pytest.mark.parametrize(("runs", "left"), [(False, ""), (True, lines({"event": "late"}))])
def test_up_that_fails_returns_when_the_supervisor_has_stopped_what_it_had_started_if_it_does(tmp_path, monkeypatch, runs, left):
    said = Left(lines({"event": "error", "message": "no", "hint": "mend", "runs": runs}, {"event": "late"}))
    _, error = up(tmp_path, monkeypatch, said)
    assert (error.message, said.left) == ("no", left)


def test_what_is_written_while_the_last_lines_are_taken_is_followed_too(tmp_path, monkeypatch):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    log = files.log("web")
    log.write_text("one\ntwo\nthree\n")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("nothing came"))
    found = LocalRuntime(tmp_path / "compose.yaml", files).logs(LogQuery(service="web", follow=True, tail=2))
    assert [next(found), next(found)] == [("web", "two"), ("web", "three")]
    with log.open("a") as file:
        file.write("four\n")
    assert next(found) == ("web", "four")
    found.close()


SUPERVISOR = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
asking, _ = listener.accept()
asking.recv(1000)
asking.sendall(b'{"stopped": true}\\n')
asking.recv(1000)  # until who asked has heard that
"""


async def test_a_down_returns_when_the_supervisor_has_ended_which_has_the_folders_lock_until_then(tmp_path):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(files.control_socket)], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout.readline() == b"listening\n"
        files.write_state({"supervisor": {"pid": supervisor.pid, "started": start_time(supervisor.pid)}})
        stopped = await LocalRuntime(tmp_path / "compose.yaml", files).down(volumes=False)
        lives = start_time(supervisor.pid) is not None
        supervisor.kill()
    assert (stopped, lives) == (True, False)


async def answered(tmp_path, answer):
    """What `status` gets of a supervisor that answers so."""
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()

    async def serve(reader, writer):
        await reader.readline()
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    with files.control_address() as address:
        server = await asyncio.start_unix_server(serve, address)
    async with server:
        return await LocalRuntime(tmp_path / "compose.yaml", files).command({"command": "status"})


async def test_a_mesh_of_many_workloads_has_a_long_answer(tmp_path):
    answer = {"workloads": {f"w{number}": "x" * 1000 for number in range(200)}}
    assert await answered(tmp_path, answer) == answer


async def test_a_folder_may_have_a_longer_name_than_a_socket(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert await answered(deep, {"here": True}) == {"here": True}
