"""What the supervisor does when something goes wrong, over launchers that only write down what they are asked for."""

from __future__ import annotations

import asyncio
import io

import pytest

from devmesh.config.topology_types import Workload
from devmesh.errors import DevmeshError
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.managed import FIRST_BACKOFF, Managed
from devmesh.runtimes.local.plan import WorkloadPlan
from devmesh.runtimes.local.supervisor import FORK_SECONDS, Supervisor
from tests.support.virtual_time import in_virtual_time, now, pass_time, settled
from tests.support.waiting import until


class ScriptedLaunchers:
    make_pods = False

    def __init__(self) -> None:
        self.forked: list[str] = []

    def fork(self, request, _sockets, *, pod):
        assert not pod
        self.forked.append(request["name"])

    def state(self):
        return {}


def supervised(tmp_path, *names, kind="sidecar", settings=None):
    """A supervisor that has forked these processes, and its launchers."""
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    launchers = ScriptedLaunchers()
    supervisor = Supervisor(tmp_path / "compose.yaml", files, settings or {}, io.StringIO(), launchers)
    for name in names:
        supervisor._fork(name, "sidecar", {}, [], kind=kind)
        supervisor._on_launcher({"event": "started", "name": name, "pid": 0})
    return supervisor, launchers


def plan(name, *ports):
    workload = Workload(name, "default", name, "v1", {}, "default", "127.7.0.1", ports)
    return WorkloadPlan(workload, app_ports={port: port for port in ports})


@in_virtual_time
async def test_what_dies_is_started_again_after_a_wait_that_doubles(tmp_path):
    supervisor, launchers = supervised(tmp_path, "web-sidecar")
    for number in range(3):
        supervisor._on_launcher({"event": "exited", "name": "web-sidecar", "pid": 0, "status": -9})
        await pass_time(FIRST_BACKOFF * 2**number * 0.9)
        assert len(launchers.forked) == 1 + number, "too early"
        await pass_time(FIRST_BACKOFF * 2**number * 0.2)
        assert len(launchers.forked) == 2 + number
    assert supervisor.processes["web-sidecar"].restarts == 3


@in_virtual_time
async def test_what_is_not_wanted_any_more_stays_dead(tmp_path):
    supervisor, launchers = supervised(tmp_path, "web-sidecar")
    supervisor.processes["web-sidecar"].wanted = False
    supervisor._on_launcher({"event": "exited", "name": "web-sidecar", "pid": 0, "status": 0})
    await pass_time(60)
    assert launchers.forked == ["web-sidecar"]


@in_virtual_time
async def test_the_end_of_an_earlier_process_of_that_name_is_no_end_of_this_one(tmp_path):
    supervisor, launchers = supervised(tmp_path, "web-sidecar")
    supervisor.processes["web-sidecar"].pid = 2**22
    supervisor._on_launcher({"event": "exited", "name": "web-sidecar", "pid": 2**22 + 1, "status": 0})
    await pass_time(60)
    assert launchers.forked == ["web-sidecar"]


@in_virtual_time
async def test_a_part_that_dies_again_and_again_fails_up_with_its_last_twenty_lines(tmp_path):
    supervisor, _ = supervised(tmp_path, "ca", kind="ours")
    supervisor.files.log("ca").write_text("".join(f"line {number}\n" for number in range(30)))
    supervisor.processes["ca"].restarts = 2
    with pytest.raises(DevmeshError) as caught:
        await supervisor._ready("ca")
    assert caught.value.message.splitlines() == ["ca does not become ready; its last lines:", *(f"line {n}" for n in range(10, 30))]
    assert caught.value.hint == "devmesh logs ca"


@pytest.mark.parametrize(
    ("status", "words"), [(3, "web exits at start (status 3)"), (None, "web does not listen on its port 8080, 9090 after 30 s")]
)
def test_an_app_that_failed_is_named_with_how_and_its_last_words(tmp_path, status, words):
    supervisor, _ = supervised(tmp_path)
    supervisor.plans["web"] = plan("web", 8080, 9090)
    supervisor.processes["web"] = Managed("web", "app", status=status)
    supervisor.files.log("web").write_text("no database here\n")
    error = supervisor._failed_at_start(["web"])
    assert error.message == f"{words}; its last lines:\nno database here\nThe rest of the mesh runs."
    assert error.hint == "devmesh logs web"


@pytest.mark.parametrize(("settings", "seconds"), [({}, 30), ({"wait_timeout": None}, 30), ({"wait_timeout": 2.0}, 2)])
@in_virtual_time
async def test_an_app_in_a_pod_that_never_listens_is_waited_for_as_long_as_up_was_told(tmp_path, settings, seconds):
    supervisor, _ = supervised(tmp_path, settings=settings)
    process = Managed("web", "app", listens=True)
    assert await supervisor._pod_app_listens(process) == "web"
    assert now() == pytest.approx(seconds)
    supervisor.processes["web"], supervisor.plans["web"] = process, plan("web", 80)
    assert f"after {seconds} s" in supervisor._failed_at_start(["web"]).message


@pytest.mark.parametrize(("ports", "ready"), [((), True), ((8080,), False)], ids=["a job", "a server"])
async def test_an_app_without_ports_is_ready_when_it_runs(tmp_path, ports, ready):
    supervisor, _ = supervised(tmp_path)
    supervisor.processes["job"] = process = Managed("job", "app", listens=bool(ports))
    process.wanted = False
    await supervisor._spawn(process, ["cat"], {}, tmp_path)
    assert process.ready is ready
    await until(lambda: process.status is not None)
    assert not process.ready


@in_virtual_time
async def test_a_fork_that_was_just_asked_for_is_heard_of_before_anything_is_stopped(tmp_path):
    supervisor, _ = supervised(tmp_path)
    supervisor._fork("web-sidecar", "sidecar", {}, [], kind="sidecar")
    heard = asyncio.create_task(supervisor._all_forked())
    await settled()
    assert not heard.done()
    supervisor._on_launcher({"event": "started", "name": "web-sidecar", "pid": 2**22})
    await heard
    assert now() < FORK_SECONDS


@in_virtual_time
async def test_a_launcher_that_is_gone_is_not_waited_for_without_end(tmp_path):
    supervisor, _ = supervised(tmp_path)
    supervisor._fork("web-sidecar", "sidecar", {}, [], kind="sidecar")
    await supervisor._all_forked()
    assert now() == pytest.approx(FORK_SECONDS)


async def test_a_command_for_nobody_is_answered_with_an_error(tmp_path):
    supervisor, _ = supervised(tmp_path)
    supervisor.plans["web"] = plan("web")
    assert await supervisor._run_command({"command": "stop", "target": "nobody"}) == {"error": "no workload or service 'nobody'"}


def test_whoever_listened_may_be_gone(tmp_path):
    supervisor, _ = supervised(tmp_path)
    supervisor._report.close()
    supervisor.say(event="note", message="nobody hears this")
