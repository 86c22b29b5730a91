"""Who is restarted with a service on an engine, and what that waits for first."""

from dataclasses import replace

import pytest

from devmesh.config.dependencies import COMPLETED, HEALTHY, STARTED, Dependency
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker import dependents
from devmesh.runtimes.docker.dependents import as_json, failure, is_met, restart_dependents
from devmesh.runtimes.docker.engine import Container


def app(name, state="running", health="", exit_code=0):
    labels = {"devmesh.role": "app", "devmesh.workload": name}
    return Container(name, f"id-{name}", f"shop-{name}-1", state, health, exit_code, "", 0, "", labels, "", "no", {})


class Engine:
    """`looks` are the apps' containers at each look, the last one for ever; `did` is what it was told."""

    def __init__(self, *looks):
        self.looks, self.did = list(looks), []

    def containers(self, project, label):
        assert (project, label) == ("shop", "devmesh.role=app")
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def restart(self, container):
        self.did.append(container)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(dependents, "LOOK_SECONDS", 0)


def state(**depends_on):
    workloads = {name: {"depends_on": as_json(needs)} for name, needs in depends_on.items()}
    return {"project": "shop", "workloads": workloads | {"db": {"depends_on": []}, "istio-ingressgateway": {}}}


def test_who_asks_for_it_is_restarted_when_what_it_waits_for_is_healthy_again():
    engine = Engine(
        [app("api"), app("db", health="starting")],
        *2 * [[app("api"), app("db", health="starting")]],
        [app("api"), app("db", health="healthy")],
    )
    shop = state(api=[Dependency("db", HEALTHY, restart=True)], job=[Dependency("db")])
    assert list(restart_dependents(engine, shop, ["db"])) == ["api"]
    assert engine.did == ["id-api"]
    assert engine.looks == [[app("api"), app("db", health="healthy")]], "not before"


@pytest.mark.parametrize("api", [[], [app("api", "exited")], [app("api", "created")]])
def test_who_does_not_run_is_left_alone(api):
    engine = Engine([*api, app("db")])
    assert list(restart_dependents(engine, state(api=[Dependency("db", restart=True)]), ["db"])) == []
    assert engine.did == []


def test_a_dependency_that_fails_after_its_restart_is_named_and_nobody_restarted():
    sick = replace(app("db", health="unhealthy"), check_output="no disk")
    engine = Engine([app("api"), sick])
    with pytest.raises(DevmeshError, match="db restarted, api not: db is unhealthy: no disk") as caught:
        list(restart_dependents(engine, state(api=[Dependency("db", HEALTHY, restart=True)]), ["db"]))
    assert caught.value.hint == "devmesh logs db"
    assert engine.did == []


def test_a_dependency_that_stays_as_it_is_ends_the_wait():
    times = iter([0.0, dependents.DEPENDENT_SECONDS, dependents.DEPENDENT_SECONDS + 1])
    engine = Engine([app("api"), app("db", health="starting")])
    with pytest.raises(DevmeshError, match="it waited 120 s for db to be healthy"):
        list(restart_dependents(engine, state(api=[Dependency("db", HEALTHY, restart=True)]), ["db"], lambda: next(times)))


@pytest.mark.parametrize(
    ("condition", "one", "met", "why"),
    [
        (STARTED, app("db"), True, ""),
        (STARTED, app("db", "restarting"), True, ""),
        (STARTED, None, False, "db is gone"),
        (HEALTHY, app("db", health="starting"), False, ""),
        (HEALTHY, app("db", health="healthy"), True, ""),
        (HEALTHY, app("db", "restarting"), False, ""),
        (HEALTHY, app("db", health="unhealthy"), False, "db is unhealthy"),
        (HEALTHY, app("db"), False, "db has no healthcheck configured"),
        (HEALTHY, app("db", "exited", "healthy", 3), False, "db exited (3)"),
        (COMPLETED, app("db"), False, ""),
        (COMPLETED, app("db", "exited"), True, ""),
        (COMPLETED, app("db", "exited", exit_code=2), False, "db didn't complete successfully: exit 2"),
    ],
)
def test_what_is_waited_for(condition, one, met, why):
    assert failure(Dependency("db", condition), one) == why
    assert one is None or why or is_met(Dependency("db", condition), one) == met
