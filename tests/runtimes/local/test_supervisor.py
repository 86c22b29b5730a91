"""What the supervisor answers, over launchers that only write down what they are asked for."""

from __future__ import annotations

import asyncio
import io
import json
import os
from dataclasses import replace

import pytest

from devmesh.config.dependencies import COMPLETED, HEALTHY, Dependency
from devmesh.errors import DevmeshError
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.supervisor import Supervisor
from tests.runtimes.local.scripted import ScriptedLaunchers, plan
from tests.support.waiting import until


def supervisor_of(tmp_path, settings=None):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    return Supervisor(tmp_path / "compose.yaml", files, settings or {}, io.StringIO(), ScriptedLaunchers(), began=0.0)


async def test_a_command_for_nobody_is_answered_with_an_error(tmp_path):
    supervisor = supervisor_of(tmp_path)
    supervisor.plans["web"] = plan("web")
    assert await supervisor._run_command({"command": "stop", "target": "nobody"}) == {"error": "no workload or service 'nobody'"}


@pytest.mark.parametrize("command", ["stop", "start", "restart", "kill"])
async def test_a_gateway_has_no_app_to_do_anything_to(tmp_path, command):
    supervisor = supervisor_of(tmp_path)
    supervisor.plans["gateway"] = plan("gateway")
    answer = await supervisor._run_command({"command": command, "target": "gateway"})
    assert answer == {"error": f"gateway is a gateway: there is no app to {command}"}


async def test_an_app_that_runs_is_not_started_a_second_time(tmp_path):
    supervisor = supervisor_of(tmp_path)
    supervisor.plans["web"] = plan("web")
    process = supervisor.processes["web"] = Managed("web", "app", pid=1, request={"argv": ["false"], "environment": {}})
    assert await supervisor._run_command({"command": "start", "target": "web"}) == {"workloads": ["web"]}
    assert (process.pid, process.status, process.wanted) == (1, None, True)


def test_whoever_listened_may_be_gone(tmp_path):
    supervisor = supervisor_of(tmp_path)
    supervisor._report.close()
    supervisor.say(event="note", message="nobody hears this")


@pytest.mark.parametrize(("settings", "seconds"), [({}, 30), ({"wait_timeout": None}, 30), ({"wait_timeout": 2.0}, 2)])
def test_up_waits_as_long_as_it_was_told(tmp_path, settings, seconds):
    assert supervisor_of(tmp_path, settings)._children.limit == seconds


async def test_whoever_told_it_to_end_has_an_answer_when_it_ends(tmp_path, monkeypatch):
    supervisor, ourselves, our_end = supervisor_of(tmp_path), asyncio.current_task(), asyncio.Event()

    async def end():
        if asyncio.current_task() is not ourselves:
            await our_end.wait()  # the command is behind whoever else ends it

    monkeypatch.setattr(supervisor._launchers, "end", end)
    supervisor.up_ended.set()
    server = await supervisor.serve_commands()
    reader, writer = await asyncio.open_unix_connection(supervisor.files.control_socket)
    writer.write(b'{"command": "down"}\n')
    await supervisor.stopping.wait()
    await supervisor.stop()
    our_end.set()
    server.close()
    await supervisor.answered()
    assert asyncio.all_tasks() == {ourselves}, "what is left would be cancelled"
    assert json.loads(await reader.readline()) == {"stopped": True}
    writer.close()


async def test_an_app_that_is_restarted_runs_once(tmp_path):
    supervisor = supervisor_of(tmp_path)
    supervisor.plans["job"] = plan("job")
    request = {"argv": ["sleep", "600"], "environment": dict(os.environ), "cwd": str(tmp_path)}
    process = supervisor.processes["job"] = Managed("job", "app", request=request)
    await supervisor._children.spawn(process)
    first = process.pid

    def tasks(about):
        return [task for task in supervisor._children._tasks if task.get_name() == f"{about} job"]

    assert await supervisor._run_command({"command": "restart", "target": "job"}) == {"workloads": ["job"]}
    await until(lambda: len(tasks("wait for")) == 1)  # the first one's end is known
    assert process.pid != first
    assert tasks("restart") == []
    assert await supervisor._run_command({"command": "stop", "target": "job"}) == {"workloads": ["job"]}
    assert process.status is not None


def depending(name, *needs):
    made = plan(name)
    made.workload = replace(made.workload, depends_on=needs)
    return made


def with_apps(supervisor, folder, *plans):
    for one in plans:
        name = one.workload.name
        supervisor.plans[name] = one
        request = {"argv": ["sleep", "600"], "environment": dict(os.environ), "cwd": str(folder)}
        supervisor.processes[name] = Managed(name, "app", request=request)


async def stop_apps(supervisor):
    for name in supervisor.plans:
        await supervisor._run_command({"command": "stop", "target": name})


async def test_a_dependent_whose_dependency_does_not_come_back_is_named_and_left_running(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db", HEALTHY, restart=True)))
    for process in supervisor.processes.values():
        await supervisor._children.spawn(process)
    first = supervisor.processes["web"].pid
    with pytest.raises(DevmeshError, match="db restarted, web not: dependency failed to start: db has no healthcheck configured"):
        await supervisor._run_command({"command": "restart", "target": "db"})
    assert supervisor.processes["web"].pid == first
    await stop_apps(supervisor)


async def test_a_dependent_that_was_stopped_is_not_restarted(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db", restart=True)))
    for process in supervisor.processes.values():
        await supervisor._children.spawn(process)
    await supervisor._run_command({"command": "stop", "target": "web"})
    assert await supervisor._run_command({"command": "restart", "target": "db"}) == {"workloads": ["db"]}
    assert not supervisor.processes["web"].runs
    await stop_apps(supervisor)


async def test_an_app_that_is_stopped_while_it_waits_is_not_started(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db")))
    coming = asyncio.create_task(supervisor._come_up(supervisor.plans["web"]))
    await until(lambda: supervisor.processes["web"].waits == "db to start")
    await supervisor._run_command({"command": "stop", "target": "web"})
    assert await coming == "web"
    assert "web was stopped before it was started" in supervisor._apps.failed_at_start([supervisor.plans["web"]]).message


async def test_who_waits_for_a_stopped_app_fails(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db")))
    coming = asyncio.create_task(supervisor._come_up(supervisor.plans["web"]))
    await until(lambda: supervisor.processes["web"].waits == "db to start")
    await supervisor._run_command({"command": "stop", "target": "db"})
    assert await coming == "web"
    assert supervisor.processes["web"].refused == "dependency failed to start: db was stopped"


@pytest.mark.parametrize(("settings", "ends"), [({"wait_timeout": 0.01}, True), ({}, False)])
async def test_a_dependency_has_the_time_that_it_takes_unless_up_was_told_how_long(tmp_path, settings, ends):
    supervisor = supervisor_of(tmp_path, settings)
    supervisor._children.limit = 0.01
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db", COMPLETED)))
    supervisor.processes["db"].begin(1.0)
    coming = asyncio.create_task(supervisor._come_up(supervisor.plans["web"]))
    if ends:
        assert await coming == "web"
        assert supervisor.processes["web"].refused == "web still waits for db to complete after 0.01 s"
        return
    await until(lambda: supervisor._children.is_late)
    assert supervisor.processes["web"].waits == "db to complete"
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)
    assert not supervisor.processes["web"].born
