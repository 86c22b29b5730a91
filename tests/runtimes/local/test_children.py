"""Processes by name, over launchers that only write down what they are asked for."""

from __future__ import annotations

import asyncio

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.children import FORK_SECONDS, Children
from devmesh.runtimes.local.managed import FIRST_BACKOFF, Managed
from tests.runtimes.local.scripted import ScriptedLaunchers
from tests.support.virtual_time import in_virtual_time, now, pass_time, settled
from tests.support.waiting import until


def born(tmp_path, *names, kind="sidecar", again=None):
    """These processes, forked, and their launchers."""
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    launchers = ScriptedLaunchers()
    children = Children(files, launchers, again, lambda: None)
    for name in names:
        children.fork(name, "sidecar", {}, [], kind=kind)
        children.on_launcher({"event": "started", "name": name, "pid": 0})
    return children, launchers


@in_virtual_time
async def test_what_dies_is_started_again_after_a_wait_that_doubles(tmp_path):
    children, launchers = born(tmp_path, "web-sidecar")
    for number in range(3):
        children.on_launcher({"event": "exited", "name": "web-sidecar", "pid": 0, "status": -9})
        await pass_time(FIRST_BACKOFF * 2**number * 0.9)
        assert len(launchers.forked) == 1 + number, "too early"
        await pass_time(FIRST_BACKOFF * 2**number * 0.2)
        assert len(launchers.forked) == 2 + number
    assert children.processes["web-sidecar"].restarts == 3


@in_virtual_time
async def test_what_is_not_wanted_any_more_stays_dead(tmp_path):
    children, launchers = born(tmp_path, "web-sidecar")
    children.processes["web-sidecar"].wanted = False
    children.on_launcher({"event": "exited", "name": "web-sidecar", "pid": 0, "status": 0})
    await pass_time(60)
    assert launchers.forked == ["web-sidecar"]


@in_virtual_time
async def test_the_end_of_an_earlier_process_of_that_name_is_no_end_of_this_one(tmp_path):
    children, launchers = born(tmp_path, "web-sidecar")
    children.processes["web-sidecar"].pid = 2**22
    children.on_launcher({"event": "exited", "name": "web-sidecar", "pid": 2**22 + 1, "status": 0})
    await pass_time(60)
    assert launchers.forked == ["web-sidecar"]


@in_virtual_time
async def test_a_part_that_dies_again_and_again_fails_up_with_its_last_twenty_lines(tmp_path):
    children, _ = born(tmp_path, "ca", kind="ours")
    MeshFiles.of(tmp_path / "compose.yaml").log("ca").write_text("".join(f"line {number}\n" for number in range(30)))
    children.processes["ca"].restarts = 2
    with pytest.raises(DevmeshError) as caught:
        await children.ready("ca")
    assert caught.value.message.splitlines() == ["ca does not become ready; its last lines:", *(f"line {n}" for n in range(10, 30))]
    assert caught.value.hint == "devmesh logs ca"


@pytest.mark.parametrize(("ports", "ready"), [((), True), ((8080,), False)], ids=["a job", "a server"])
async def test_an_app_without_ports_is_ready_when_it_runs(tmp_path, ports, ready):
    children, _ = born(tmp_path)
    children.processes["job"] = process = Managed(
        "job", "app", listens=bool(ports), request={"argv": ["cat"], "environment": {}, "cwd": str(tmp_path)}
    )
    process.wanted = False
    await children.spawn(process)
    assert process.ready is ready
    await until(lambda: process.status is not None)
    assert not process.ready


@in_virtual_time
async def test_an_app_that_died_is_started_by_whoever_knows_how_and_not_by_a_launcher(tmp_path):
    again = []

    async def start(process):
        again.append(process.name)

    children, launchers = born(tmp_path, "web", kind="app", again=start)
    children.on_launcher({"event": "exited", "name": "web", "pid": 0, "status": 1})
    await pass_time(FIRST_BACKOFF * 1.1)
    assert (again, launchers.forked) == (["web"], ["web"])


@in_virtual_time
async def test_an_app_that_somebody_starts_while_it_waits_for_its_restart_is_not_started_twice(tmp_path):
    again = []

    async def start(process):
        again.append(process.name)

    children, _ = born(tmp_path, "web", kind="app", again=start)
    children.exited(children.processes["web"], 1)
    children.processes["web"].begin(0)
    await pass_time(60)
    assert again == []


@in_virtual_time
async def test_an_app_whose_pod_has_died_waits_for_the_pod(tmp_path):
    children, launchers = born(tmp_path, "web", kind="app")
    children.processes["web-pod"] = Managed("web-pod", "pod", status=-9)
    children.exited(children.processes["web"], -9)
    await pass_time(60)
    assert launchers.forked == ["web"]


@pytest.mark.parametrize(("restart", "status", "again"), [("", 0, False), ("", 1, True), ("no", 1, False), ("on-failure:1", 1, True)])
@in_virtual_time
async def test_an_app_that_is_done_stays_so_and_says_it(tmp_path, restart, status, again):
    started = []

    async def start(process):
        started.append(process.name)

    children, _ = born(tmp_path, "job", kind="app", again=start)
    process = children.processes["job"]
    process.restart = restart
    children.exited(process, status)
    await pass_time(60)
    assert (bool(started), process.over, process.to_json().get("state")) == (again, not again, None if again else "exited")
    process.begin(0)
    assert not process.over, "devmesh start runs it again"


async def test_what_cannot_be_started_has_ended_and_its_log_says_why(tmp_path):
    children, _ = born(tmp_path)
    process = children.processes["job"] = Managed("job", "app", wanted=False, request={"argv": ["no-such-program"], "environment": {}})
    await children.spawn(process)
    assert process.status == 127
    assert "cannot start no-such-program: " in children.last_lines("job")


@in_virtual_time
async def test_a_fork_that_was_just_asked_for_is_heard_of_before_anything_is_stopped(tmp_path):
    children, _ = born(tmp_path)
    children.fork("web-sidecar", "sidecar", {}, [], kind="sidecar")
    heard = asyncio.create_task(children.all_known())
    await settled()
    assert not heard.done()
    children.on_launcher({"event": "started", "name": "web-sidecar", "pid": 2**22})
    await heard
    assert now() < FORK_SECONDS


@in_virtual_time
async def test_so_is_one_that_takes_the_place_of_another(tmp_path):
    children, _ = born(tmp_path)
    children.fork("web-sidecar", "sidecar", {}, [], kind="sidecar")
    children.on_launcher({"event": "started", "name": "web-sidecar", "pid": 2**22})
    children.on_launcher({"event": "exited", "name": "web-sidecar", "pid": 2**22, "status": -9})
    await pass_time(FIRST_BACKOFF)
    heard = asyncio.create_task(children.all_known())
    await settled()
    assert not heard.done()
    children.on_launcher({"event": "started", "name": "web-sidecar", "pid": 2**22 + 1})
    await heard
    assert now() < FORK_SECONDS


async def test_an_app_that_is_being_started_is_known_before_anything_is_stopped(tmp_path):
    children, _ = born(tmp_path)
    process = children.processes["web"] = Managed("web", "app", wanted=False, request={"argv": ["cat"], "environment": {}})
    starting = asyncio.create_task(children.spawn(process))
    await asyncio.sleep(0)
    assert (process.asked, process.pid) == (True, 0)
    await children.all_known()
    assert process.pid
    await starting
    await until(lambda: process.status is not None)


@in_virtual_time
async def test_a_launcher_that_is_gone_is_not_waited_for_without_end(tmp_path):
    children, _ = born(tmp_path)
    children.fork("web-sidecar", "sidecar", {}, [], kind="sidecar")
    await children.all_known()
    assert now() == pytest.approx(FORK_SECONDS)
