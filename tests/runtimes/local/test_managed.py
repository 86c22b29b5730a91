"""One process as the supervisor keeps it: what is said of it while it is awaited."""

from __future__ import annotations

import asyncio

import pytest

from devmesh.config.healthcheck import Healthcheck
from devmesh.pods.check import Outcome
from devmesh.runtimes.local.managed import Changed, Managed


@pytest.mark.parametrize(
    ("given", "awaited"),
    [
        ({}, True),
        ({"ready": True}, False),
        ({"refused": "dependency failed to start: db exited (1)"}, False),
        ({"over": True, "status": 0}, False),
        ({"over": True, "status": 1}, True),
    ],
    ids=["not ready", "ready", "not to be started", "a job that is done", "a job that failed"],
)
def test_who_is_awaited(given, awaited):
    assert Managed("web", "app", **given).is_awaited is awaited


def test_an_app_is_ready_when_its_healthcheck_says_so_too():
    process = Managed("db", "app", healthcheck=Healthcheck(("x",)))
    process.begin(1.0)
    process.ready = True
    assert process.to_json()["ready"] is False
    process.health.take(Outcome(0, "fine"), 1.0)
    assert process.to_json()["ready"] is True
    assert process.to_json()["health"] == {"status": "healthy", "failures": 0, "output": "fine"}
    process.begin(2.0)
    assert process.to_json()["health"]["status"] == "starting", "what is started again is looked at again"


def test_why_an_app_is_not_started_is_in_the_state_until_it_is():
    process = Managed("web", "app", waits="db to be healthy")
    assert process.to_json()["waits"] == "waits for db to be healthy"
    process.refuse("dependency failed to start: db exited (1)", "db")
    assert process.to_json()["waits"] == "dependency failed to start: db exited (1)"
    process.begin(1.0)
    assert "waits" not in process.to_json()


def test_a_change_is_told_to_who_watches_several():
    changed, news = Changed(), asyncio.Event()
    changed.followers.add(news)
    changed.set()
    assert news.is_set()
