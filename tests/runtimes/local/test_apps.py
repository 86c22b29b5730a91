"""The user's processes: how one that fails at its start is told of."""

from __future__ import annotations

import asyncio
import socket

import pytest

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.apps import Apps
from devmesh.runtimes.local.checks import Checks
from devmesh.runtimes.local.children import UP_TIMEOUT, Children
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.pods import Pods
from tests.runtimes.local.scripted import ScriptedLaunchers, plan
from tests.support.virtual_time import in_virtual_time, now


def apps(tmp_path, limit=UP_TIMEOUT):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    children = Children(files, ScriptedLaunchers(), None, lambda: None, limit)
    pods = Pods(files, lambda *_: None)
    return Apps(files, children, pods, Checks(files, pods, lambda: None)), children, files


@pytest.mark.parametrize(
    ("status", "words"), [(3, "web exits at start (status 3)"), (None, "web does not listen on its port 8080, 9090 after 30 s")]
)
def test_an_app_that_failed_is_named_with_how_and_its_last_words(tmp_path, status, words):
    started, children, files = apps(tmp_path)
    process = children.processes["web"] = Managed("web", "app")
    if status is not None:
        process.ended(status)
        process.begin(0)  # it was started again before it is told of
    files.log("web").write_text("no database here\n")
    error = started.failed_at_start([plan("web", 8080, 9090)])
    assert error.message == f"{words}; its last lines:\nno database here\nThe rest of the mesh runs."
    assert error.hint == "devmesh logs web"


def test_an_app_that_was_not_started_is_named_with_its_dependencys_last_words(tmp_path):
    started, children, files = apps(tmp_path)
    for name in ("web", "api"):
        children.processes[name] = Managed(name, "app")
        children.processes[name].refuse("dependency failed to start: db is unhealthy: no disk", "db")
    files.log("db").write_text("where is my disk\n")
    error = started.failed_at_start([plan("web", 8080), plan("api", 9090)])
    assert error.message == (
        "dependency failed to start: db is unhealthy: no disk; web, api were not started; the last lines of db:\n"
        "where is my disk\nThe rest of the mesh runs."
    )
    assert error.hint == "devmesh logs db"


def test_a_dependencys_last_words_are_told_once(tmp_path):
    started, children, files = apps(tmp_path)
    children.processes["db"] = Managed("db", "app", born=1.0, status=1, last_status=1)
    children.processes["web"] = Managed("web", "app")
    children.processes["web"].refuse("dependency failed to start: db exited (1)", "db")
    files.log("db").write_text("where is my disk\n")
    error = started.failed_at_start([plan("web", 8080), plan("db", 5000)])
    assert error.message == (
        "db exits at start (status 1); its last lines:\nwhere is my disk\n"
        "dependency failed to start: db exited (1); web was not started\nThe rest of the mesh runs."
    )


async def test_an_app_that_ends_before_it_listens_is_named_at_once(tmp_path):
    started, children, _ = apps(tmp_path)
    children.processes["web"] = Managed("web", "app", status=3, listens=True)
    assert await started.listens(plan("web", 8080)) == "web"


async def test_nobody_waits_for_an_app_without_ports(tmp_path):
    started, children, _ = apps(tmp_path)
    children.processes["job"] = Managed("job", "app")
    assert await started.listens(plan("job")) is None


async def test_an_app_beside_its_sidecar_is_awaited_until_its_port_is_open(tmp_path):
    started, children, _ = apps(tmp_path)
    process = children.processes["web"] = Managed("web", "app", listens=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        waiting = asyncio.create_task(started.listens(plan("web", sock.getsockname()[1])))
        await asyncio.sleep(0)
        assert not process.ready
        sock.listen()
        assert await waiting is None
    assert process.ready


@in_virtual_time
async def test_an_app_in_a_pod_that_never_listens_is_waited_for_as_long_as_up_was_told(tmp_path):
    started, children, _ = apps(tmp_path, 2.0)
    children.processes["web"] = Managed("web", "app", listens=True)
    web = plan("web", 80)
    web.interception = "namespace"
    assert await started.listens(web) == "web"
    assert now() == pytest.approx(2.0)
    assert "after 2 s" in started.failed_at_start([web]).message
