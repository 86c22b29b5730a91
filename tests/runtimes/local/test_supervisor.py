"""What the supervisor answers, over launchers that only write down what they are asked for."""

from __future__ import annotations

import asyncio
import io
import json
import os

import pytest

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


async def test_an_app_that_was_stopped_is_said_to_be_until_it_is_started(tmp_path):
    supervisor = supervisor_of(tmp_path)
    supervisor.plans["web"] = plan("web")
    process = supervisor.processes["web"] = Managed("web", "app", request={"argv": ["sleep", "600"], "environment": {}})
    await supervisor._children.spawn(process)
    seen = []
    for command in ("stop", "start", "stop"):
        await supervisor._run_command({"command": command, "target": "web"})
        seen.append(process.to_json().get("state"))
    assert seen == ["stopped", None, "stopped"]


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


async def test_an_app_that_is_being_started_again_is_stopped_too(tmp_path):
    supervisor = supervisor_of(tmp_path)
    supervisor.plans["job"] = plan("job")
    process = supervisor.processes["job"] = Managed("job", "app", request={"argv": ["sleep", "600"], "environment": dict(os.environ)})
    starting = asyncio.create_task(supervisor._children.spawn(process))
    await asyncio.sleep(0)
    assert process.asked
    assert await supervisor._run_command({"command": "stop", "target": "job"}) == {"workloads": ["job"]}
    await starting
    assert process.status is not None
