"""Apps that faults hold and kill: real process groups and a real pod, a registry that says what is to be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devmesh.config.injection import FaultRequest
from devmesh.registry.client import Registry
from devmesh.registry.resources import delete_resources, write_resources
from devmesh.runtimes.local.holding import Holding, kill_app
from devmesh.runtimes.local.leftovers import let_go
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.processes import start_time, stop_all
from tests.pods.harness import one_pod
from tests.runtimes.faulty import mesh_registry, stored
from tests.support.require import pods
from tests.support.waiting import until

CHILD = "import signal; print('on', flush=True); signal.pause()"
APP = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
PAUSE = FaultRequest("api", pause=True)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


class NoPods:
    def __contains__(self, name: str) -> bool:
        return False


NONE: Any = NoPods()


@contextlib.asynccontextmanager
async def app(name: str = "api-v1", **changes: Any) -> AsyncIterator[Managed]:
    """An app with a child, in a process group of its own, as the supervisor starts it in `proxy` interception."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", APP, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"on\n"
    managed = Managed(name, "app", process.pid, start_time(process.pid) or 0, **changes)

    async def reap() -> None:
        managed.ended(await process.wait())

    reaping = asyncio.create_task(reap())
    try:
        yield managed
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await reaping
        process._transport.close()  # type: ignore[attr-defined] # its pipe


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with mesh_registry(tmp_path / "registry") as client:
        yield client


async def test_a_pause_stops_an_app_with_its_children_and_its_end_lets_them_go(registry):
    async with app() as api:
        written: list[str] = []
        holding = Holding(lambda: [api], NONE, lambda: written.append(api.held))
        everything = [api.pid, child(api.pid)]
        await write_resources(registry, [stored("f1", PAUSE)])
        assert await holding.look(registry) == {"api-v1": "f1"}
        await until(lambda: [state(one) for one in everything] == ["T", "T"])
        assert api.to_json()["held"] == "f1"
        await delete_resources(registry, [("fault", stored("f1", PAUSE).key)])
        assert await holding.look(registry) == {}
        await until(lambda: [state(one) for one in everything] == ["S", "S"])
        await holding.look(registry)
        assert written == ["f1", ""], "state.json is written when something changed, and only then"


async def test_of_two_pauses_the_last_to_go_lets_go(registry):
    both = [stored("f1", PAUSE), stored("f2", FaultRequest("api-v1", pause=True))]
    async with app() as api:
        holding = Holding(lambda: [api], NONE, lambda: None)
        await write_resources(registry, both)
        await holding.look(registry)
        await delete_resources(registry, [("fault", both[1].key)])
        assert await holding.look(registry) == {"api-v1": "f1"}
        await until(lambda: state(api.pid) == "T")


@pytest.mark.parametrize(
    "changes", [{"listens": True}, {"status": 1}, {"wanted": False}], ids=["it has yet to listen", "it ended", "somebody stopped it"]
)
async def test_an_app_that_does_not_run_yet_or_no_more_is_left_alone(registry, changes):
    async with app() as api:
        for name, value in changes.items():
            setattr(api, name, value)
        await write_resources(registry, [stored("f1", PAUSE)])
        assert await Holding(lambda: [api], NONE, lambda: None).look(registry) == {}
        assert state(api.pid) != "T"


async def test_an_app_that_was_started_again_is_held_again(registry):
    async with app() as first, app() as second:
        await write_resources(registry, [stored("f1", PAUSE)])
        holding = Holding(lambda: [first], NONE, lambda: None)
        await holding.look(registry)
        first.begin(0.0)
        first.pid, first.started = second.pid, second.started
        assert await holding.look(registry) == {"api-v1": "f1"}
        await until(lambda: state(second.pid) == "T")


async def test_a_killed_app_is_dead_when_it_is_said_and_one_that_does_not_run_is_not_killed():
    async with app() as api:
        assert await kill_app(api, NONE)
        assert api.status == -signal.SIGKILL
        assert not await kill_app(api, NONE)


async def test_a_held_app_is_stopped_at_once(registry):
    async with app() as api:
        await write_resources(registry, [stored("f1", PAUSE)])
        await Holding(lambda: [api], NONE, lambda: None).look(registry)
        await until(lambda: state(api.pid) == "T")
        await asyncio.to_thread(stop_all, [(api.pid, api.started)], 60.0)
        await until(lambda: api.status is not None)
        assert api.status == -signal.SIGTERM, "it need not be killed"


async def test_what_a_supervisor_that_is_gone_had_stopped_is_let_go(registry):
    async with app() as api, app("web-v1") as other:
        await write_resources(registry, [stored("f1", PAUSE)])
        await Holding(lambda: [api, other], NONE, lambda: None).look(registry)
        everything = [api.pid, child(api.pid)]
        await until(lambda: [state(one) for one in everything] == ["T", "T"])
        let_go({"processes": [api.to_json(), other.to_json()]})
        await until(lambda: [state(one) for one in everything] == ["S", "S"])


async def test_in_a_pod_a_pause_stops_what_left_the_apps_group_and_without_a_supervisor_it_is_let_go(registry, tmp_path):
    pods()
    script = "import os, signal, subprocess, sys\nsubprocess.Popen(['sleep', '600'], start_new_session=True)\nsignal.pause()"
    async with one_pod(tmp_path / "pod") as pod:
        pod.start(script)
        main = pod.pods.outside_pid("app", (await pod.event("app"))["pid"])
        await until(lambda: state(main) == "S" and bool(Path(f"/proc/{main}/task/{main}/children").read_text()))
        process = Managed("app", "app", main, start_time(main) or 0)
        in_pod = Holding(lambda: [process], pod.pods, lambda: None)
        in_pod.bring_about(process, "f1")
        everything = [main, child(main)]
        await until(lambda: [state(one) for one in everything] == ["T", "T"])
        let_go({"processes": [process.to_json()]})
        await until(lambda: [state(one) for one in everything] == ["S", "S"])
        killed = asyncio.create_task(kill_app(process, pod.pods))
        process.ended((await pod.event("exited"))["status"])
        assert await killed
        assert process.status == -signal.SIGKILL
