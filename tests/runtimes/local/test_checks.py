"""When healthchecks are run, and what a run that says nothing means."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from devmesh.config.healthcheck import Healthcheck
from devmesh.pods.check import Outcome
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local import checks as module
from devmesh.runtimes.local.checks import Checks
from devmesh.runtimes.local.managed import Managed
from tests.support.virtual_time import in_virtual_time, now


class Clock:
    """The loop's own time for what asks the machine's."""

    @staticmethod
    def monotonic():
        return now()


class ScriptedPods:
    """Its inits do each run as told: an outcome, seconds until then."""

    def __init__(self):
        self.asked: list[float] = []
        self.answers: list[tuple[Outcome, float] | None] = []
        self.checks: Checks | None = None

    def __contains__(self, name):
        return True

    def check(self, name, command):
        self.asked.append(now())
        answer = self.answers.pop(0) if self.answers else (Outcome(0, ""), 0.0)
        if answer is not None:
            outcome, seconds = answer
            event = {"event": "checked", "id": command["id"], **outcome.to_json()}
            asyncio.get_running_loop().call_later(seconds, self.checks.on_checked, event)


BAD = Outcome(1, "no")


@contextlib.asynccontextmanager
async def watched(tmp_path, monkeypatch, *answers, ready=False, **check):
    """(process, pods, how often the mesh was told)"""
    monkeypatch.setattr(module, "time", Clock)
    pods, told = ScriptedPods(), []
    pods.answers = list(answers)
    checks = pods.checks = Checks(MeshFiles.of(tmp_path / "compose.yaml"), pods, lambda: told.append(now()))
    request = {"argv": ["app"], "environment": {}, "cwd": "/"}
    process = Managed("db", "app", listens=True, healthcheck=Healthcheck(("x",), **check), request=request)
    process.begin(now())
    process.ready = ready
    checks.watch(process)
    try:
        yield process, pods, told
    finally:
        await checks.close()


@in_virtual_time
async def test_the_first_run_is_an_interval_after_the_start_and_the_next_one_after_its_end(tmp_path, monkeypatch):
    async with watched(tmp_path, monkeypatch, (BAD, 2.0), (BAD, 0.0), interval=10.0) as (process, pods, told):
        await asyncio.sleep(35)
        assert pods.asked == pytest.approx([10, 22, 32])
        assert (process.health.status, told) == ("healthy", pytest.approx([32]))


@in_virtual_time
async def test_while_it_starts_it_is_run_at_the_start_interval(tmp_path, monkeypatch):
    answers = [(BAD, 0.0)] * 2
    async with watched(tmp_path, monkeypatch, *answers, interval=60.0, start_period=30.0, start_interval=2.0) as (_, pods, _told):
        await asyncio.sleep(70)
        assert pods.asked == pytest.approx([2, 4, 6, 66])


@in_virtual_time
async def test_an_app_that_opens_its_ports_is_looked_at_then(tmp_path, monkeypatch):
    async with watched(tmp_path, monkeypatch, interval=30.0) as (process, pods, _):
        await asyncio.sleep(1)
        process.ready = True
        process.changed.set()
        await asyncio.sleep(1)
        assert (pods.asked, process.health.status) == (pytest.approx([1]), "healthy")


@in_virtual_time
async def test_a_look_at_an_app_that_has_just_opened_its_ports_is_no_failure(tmp_path, monkeypatch):
    async with watched(tmp_path, monkeypatch, (BAD, 0.0), ready=True, interval=30.0, retries=1) as (process, pods, _):
        await asyncio.sleep(29)
        assert (pods.asked, process.health.status, process.health.failures) == (pytest.approx([0]), "starting", 0)
        await asyncio.sleep(2)
        assert process.health.status == "healthy"


@in_virtual_time
async def test_a_run_that_nobody_tells_of_is_a_failure(tmp_path, monkeypatch):
    async with watched(tmp_path, monkeypatch, None, interval=1.0, timeout=3.0, retries=1) as (process, _, _told):
        await asyncio.sleep(8.9)
        assert process.health.status == "starting"
        await asyncio.sleep(0.2)
        assert (process.health.status, process.health.words()) == ("unhealthy", "the check was not done: no outcome")


@in_virtual_time
async def test_an_app_that_is_paused_is_not_looked_at_and_what_was_under_way_then_does_not_count(tmp_path, monkeypatch):
    async with watched(tmp_path, monkeypatch, (BAD, 5.0), interval=10.0, retries=1) as (process, pods, _):
        await asyncio.sleep(12)
        process.held, process.holds = "a-fault", process.holds + 1
        await asyncio.sleep(100)
        assert (pods.asked, process.health.status) == (pytest.approx([10]), "starting")
        process.held, process.holds = "", process.holds + 1
        process.changed.set()
        await asyncio.sleep(1)
        assert process.health.status == "healthy"


@in_virtual_time
async def test_an_app_that_has_ended_is_not_looked_at(tmp_path, monkeypatch):
    async with watched(tmp_path, monkeypatch, interval=10.0) as (process, pods, _):
        await asyncio.sleep(15)
        process.ended(1)
        await asyncio.sleep(100)
        assert (pods.asked, process.health.status) == (pytest.approx([10]), "unhealthy")


async def test_beside_an_app_without_a_pod_a_plain_process_does_it_and_ends_with_us(tmp_path):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    checks = Checks(files, {}, lambda: None)
    request = {"argv": ["app"], "environment": {"COLOUR": "green", "PATH": "/usr/bin:/bin"}, "cwd": str(tmp_path)}
    check = Healthcheck(("/bin/sh", "-c", "echo $COLOUR $(basename $PWD)"), interval=60.0)
    process = Managed("db", "app", healthcheck=check, request=request)
    process.begin(0.0)
    process.ready = True
    checks.watch(process)
    async with asyncio.timeout(30):
        while process.health.status != "healthy":
            await process.change()
    assert process.health.words() == f"green {tmp_path.name}"
    await checks.close()
    assert checks._beside._process.returncode == 0
