"""Apps that wait for others, at `up` and when somebody restarts those."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from devmesh.config.dependencies import COMPLETED, HEALTHY, Dependency
from devmesh.config.healthcheck import Healthcheck
from devmesh.errors import DevmeshError
from devmesh.pods.check import Outcome
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.waiting import NotInTimeError
from tests.runtimes.local.scripted import plan
from tests.runtimes.local.test_supervisor import supervisor_of
from tests.support.waiting import until


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


async def test_who_is_started_has_whom_it_depends_on_started_before_it(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db")), plan("other"))
    assert await supervisor._run_command({"command": "start", "target": "web"}) == {"workloads": ["db", "web"]}
    await stop_apps(supervisor)
    assert await supervisor._run_command({"command": "start", "target": "web", "alone": True}) == {"workloads": ["web"]}
    assert [name for name, one in supervisor.processes.items() if one.runs] == ["web"]
    await stop_apps(supervisor)


async def test_who_cannot_be_started_because_of_another_is_told_and_stays_stopped(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db", HEALTHY)))
    await stop_apps(supervisor)
    with pytest.raises(DevmeshError, match="web was not started: dependency failed to start: db has no healthcheck configured") as caught:
        await supervisor._run_command({"command": "start", "target": "web"})
    assert caught.value.hint == "devmesh logs db, or devmesh start --no-deps web"
    assert (supervisor.processes["web"].wanted, supervisor.processes["db"].runs) == (False, True)
    await stop_apps(supervisor)


async def test_an_app_that_is_stopped_while_it_waits_is_not_started(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db")))
    coming = asyncio.create_task(supervisor._starting.come_up(supervisor.plans["web"]))
    await until(lambda: supervisor.processes["web"].waits == "db to start")
    await supervisor._run_command({"command": "stop", "target": "web"})
    assert await coming == "web"
    assert "web was stopped before it was started" in supervisor._apps.failed_at_start([supervisor.plans["web"]]).message


async def test_who_waits_for_a_stopped_app_fails(tmp_path):
    supervisor = supervisor_of(tmp_path)
    with_apps(supervisor, tmp_path, plan("db"), depending("web", Dependency("db")))
    coming = asyncio.create_task(supervisor._starting.come_up(supervisor.plans["web"]))
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
    coming = asyncio.create_task(supervisor._starting.come_up(supervisor.plans["web"]))
    if ends:
        assert await coming == "web"
        assert supervisor.processes["web"].refused == "web still waits for db to complete after 0.01 s"
        return
    await until(lambda: supervisor._children.is_late)
    assert supervisor.processes["web"].waits == "db to complete"
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)
    assert not supervisor.processes["web"].born


async def test_who_waited_for_health_starts_when_its_sidecar_can_reach_whom_it_waited_for(tmp_path):
    supervisor, asked, reached = supervisor_of(tmp_path), [], asyncio.Event()

    async def synced(names, wanted):
        asked.append((list(names), list(wanted)))
        await reached.wait()

    supervisor._starting._synced = synced
    with_apps(
        supervisor, tmp_path, plan("db", 5000), plan("job"), depending("web", Dependency("db", HEALTHY), Dependency("job", COMPLETED))
    )
    db, job, web = (supervisor.processes[name] for name in ("db", "job", "web"))
    db.healthcheck = Healthcheck(("x",))
    for process in (db, job):
        process.begin(1.0)
    coming = asyncio.create_task(supervisor._starting.come_up(supervisor.plans["web"]))
    await until(lambda: web.waits == "db to be healthy, job to complete")
    job.ended(0)
    db.health.take(Outcome(0, ""), 0.0)
    db.changed.set()
    await until(lambda: asked == [(["web", "db"], ["db"])])
    assert not web.born
    reached.set()
    assert await coming is None
    assert web.runs
    await supervisor._run_command({"command": "stop", "target": "web"})


async def test_whom_it_waited_for_and_cannot_reach_is_named(tmp_path):
    supervisor = supervisor_of(tmp_path)

    async def synced(*_):
        raise NotInTimeError("db: its app takes no connections", "devmesh logs db")

    supervisor._starting._synced = synced
    with_apps(supervisor, tmp_path, plan("db", 5000), depending("web", Dependency("db", HEALTHY)))
    db = supervisor.processes["db"]
    db.healthcheck = Healthcheck(("x",))
    db.begin(1.0)
    db.health.take(Outcome(0, ""), 0.0)
    assert await supervisor._starting.come_up(supervisor.plans["web"]) == "web"
    assert supervisor.processes["web"].refused == "dependency failed to start: db: its app takes no connections"
