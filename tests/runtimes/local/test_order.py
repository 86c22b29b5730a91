"""Who is started after whom, and what becomes of those whose dependency fails."""

from __future__ import annotations

import asyncio

import pytest

from devmesh.config.dependencies import COMPLETED, HEALTHY, STARTED, Dependency
from devmesh.config.healthcheck import Healthcheck
from devmesh.config.topology_types import Workload
from devmesh.pods.check import Outcome
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.order import DependencyError, at_once, clear, policy, to_start, to_stop


def workload(name, *needs, restart=""):
    return Workload(name, "default", name, "v1", {}, "default", "127.7.0.1", (), depends_on=needs, restart=restart)


def needs(*names, condition=STARTED, restart=False):
    return [Dependency(name, condition, restart=restart) for name in names]


SHOP = [
    workload("web", *needs("api", "cache")),
    workload("api", *needs("db", condition=HEALTHY), *needs("migrate", condition=COMPLETED)),
    workload("migrate", *needs("db", condition=HEALTHY)),
    workload("db"),
    workload("cache", *needs("disk")),
    workload("disk"),
]


def names(workloads):
    return [one.name for one in workloads]


def test_who_waits_for_starts_alone_is_started_at_once():
    assert names(at_once(SHOP)) == ["db", "disk", "cache"], "web waits for api, which waits"


def test_nobody_is_stopped_before_all_who_depend_on_it():
    assert [sorted(group) for group in to_stop(SHOP)] == [["web"], ["api", "cache"], ["disk", "migrate"], ["db"]]
    assert to_stop([workload("a"), workload("b")]) == [["b", "a"]]
    assert to_stop([]) == []


def ran(*names, running=(), done=()):
    """Apps that have run: stopped now, running or done."""
    found = {}
    for name in names:
        found[name] = Managed(name, "app", pid=1, born=1.0, wanted=name in running or name in done, over=name in done)
        found[name].status = None if name in running else 0
    return found


def test_who_is_started_comes_after_whom_it_depends_on_and_who_does_not_run():
    stopped = ran(*names(SHOP))
    assert [name for name, _ in to_start(SHOP, ["api"], stopped)] == ["db", "migrate", "api"]
    running = ran(*names(SHOP), running=["db"], done=["migrate"])
    assert list(to_start(SHOP, ["api"], running)) == [("api", SHOP[1].depends_on)]
    assert [name for name, _ in to_start(SHOP, ["migrate"], running)] == ["migrate"], "a job is done again when it is named"
    assert list(to_start(SHOP, ["db"], running)) == []


@pytest.mark.parametrize(("given", "policy_"), [("", "no"), ("on-failure:3", "on-failure:3")])
def test_a_job_that_somebody_waits_for_is_not_run_again_unless_its_policy_says_so(given, policy_):
    job = workload("job", restart=given)
    assert policy(job, [job, workload("web", *needs("job", condition=COMPLETED))]) == policy_
    assert policy(job, [job, workload("web", *needs("job"))]) == given


class Scene:
    """`web` waits, for one dependency."""

    def __init__(self, condition, *, required=True, check=True):
        self.need = Dependency("db", condition, required)
        self.web = Managed("web", "app")
        self.db = Managed("db", "app", healthcheck=Healthcheck(("x",), retries=1) if check else None)

    async def waiting(self):
        task = asyncio.create_task(clear([self.need], {"web": self.web, "db": self.db}, self.web))
        await asyncio.sleep(0)
        return task

    def checked(self, status, output=""):
        self.db.health.take(Outcome(status, output), 0.0)
        self.db.changed.set()


async def test_what_has_started_is_waited_for_no_longer():
    scene = Scene(STARTED)
    task = await scene.waiting()
    assert scene.web.waits == "db to start"
    assert scene.web.awaited == "web (for db to start)"
    scene.db.begin(1.0)
    assert await task == []
    assert scene.web.waits == ""


async def test_what_is_healthy_is_waited_for_no_longer():
    scene = Scene(HEALTHY)
    scene.db.begin(1.0)
    task = await scene.waiting()
    assert scene.web.waits == "db to be healthy"
    scene.checked(0)
    assert await task == []


async def test_a_job_that_ends_with_0_is_waited_for_no_longer():
    scene = Scene(COMPLETED)
    scene.db.begin(1.0)
    task = await scene.waiting()
    scene.db.ended(0)
    assert await task == []


async def fails(scene, happens):
    scene.db.begin(1.0)
    task = await scene.waiting()
    happens(scene)
    scene.db.changed.set()
    with pytest.raises(DependencyError) as caught:
        await task
    assert caught.value.whose == "db"
    return caught.value.why


def over(status):
    def happens(scene):
        scene.db.ended(status)
        scene.db.over = True

    return happens


def stopped(scene):
    scene.db.wanted = False


@pytest.mark.parametrize(
    ("condition", "happens", "why"),
    [
        (HEALTHY, lambda scene: scene.checked(1, "no disk"), "db is unhealthy: no disk"),
        (HEALTHY, lambda scene: scene.checked(-9), "db is unhealthy: exit 137"),
        (HEALTHY, over(0), "db exited (0)"),
        (HEALTHY, over(-9), "db exited (137)"),
        (HEALTHY, stopped, "db was stopped"),
        (COMPLETED, over(3), "db didn't complete successfully: exit 3"),
        (COMPLETED, over(-15), "db didn't complete successfully: exit 143"),
        (COMPLETED, stopped, "db was stopped"),
    ],
)
async def test_what_will_not_come_is_not_waited_for(condition, happens, why):
    assert await fails(Scene(condition), happens) == f"dependency failed to start: {why}"


async def test_who_has_no_healthcheck_is_never_healthy():
    assert await fails(Scene(HEALTHY, check=False), lambda _: None) == "dependency failed to start: db has no healthcheck configured"


async def test_a_job_that_is_run_again_may_complete_yet():
    scene = Scene(COMPLETED)
    scene.db.begin(1.0)
    task = await scene.waiting()
    scene.db.ended(1)
    await asyncio.sleep(0)
    scene.db.begin(2.0)
    await asyncio.sleep(0)
    scene.db.ended(0)
    assert await task == []


async def test_what_is_optional_and_fails_is_told_and_waited_for_no_longer():
    scene = Scene(HEALTHY, required=False)
    scene.db.begin(1.0)
    task = await scene.waiting()
    scene.checked(1)
    assert await task == ["optional dependency failed to start: db is unhealthy: exit 1"]


@pytest.mark.parametrize("condition", [STARTED, HEALTHY, COMPLETED])
async def test_whose_dependency_was_not_started_fails_for_the_same_reason(condition):
    scene = Scene(condition)
    task = await scene.waiting()
    scene.db.refuse("dependency failed to start: disk is unhealthy", "disk")
    with pytest.raises(DependencyError) as caught:
        await task
    assert (caught.value.whose, caught.value.why) == ("disk", "dependency failed to start: disk is unhealthy")


async def test_who_is_told_to_stop_or_is_started_by_somebody_else_waits_no_longer():
    scene = Scene(HEALTHY)
    task = await scene.waiting()
    scene.web.wanted = False
    scene.web.changed.set()
    assert await task == []
    scene = Scene(HEALTHY)
    task = await scene.waiting()
    scene.web.begin(1.0)
    assert await task == []
