"""What the keeper repairs, as a table."""

from dataclasses import replace

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.engine import SERVICE_LABEL, Container
from devmesh.runtimes.docker.keeper import Keeper, Stopped, repairs, started, take_out

EARLY, LATE = "2026-11-29T03:00:00.5Z", "2026-11-29T03:00:00.51Z"


def container(service, role, state="running", at=EARLY, workload="web", error=""):
    labels = {"devmesh.role": role} | ({"devmesh.workload": workload} if workload else {})
    return Container(service, f"id-{service}", service, state, "", 0, error, 0, at, labels, "", "no", {})


POD = container("web-pod", "pod", at=LATE)
SIDECAR = container("web-sidecar", "sidecar", at=LATE)
APP = container("web", "app", at=LATE)
CONSUL = container("consul", "consul", workload="")


@pytest.mark.parametrize(
    ("containers", "stopped", "expected", "because"),
    [
        ([POD, SIDECAR, APP, CONSUL], [], [], "all is well"),
        (
            [POD, replace(SIDECAR, started=EARLY), replace(APP, started=EARLY)],
            [],
            ["restart web-sidecar", "restart web"],
            "the pod is younger",
        ),
        ([replace(POD, state="exited"), SIDECAR, APP], [], ["start web-pod"], "nothing can join what does not run"),
        ([replace(POD, state="exited"), SIDECAR, APP], ["web-pod"], [], "somebody stopped it"),
        ([POD, replace(SIDECAR, state="exited"), APP], [], ["start web-sidecar"], "killed through the engine, which then keeps it down"),
        ([POD, SIDECAR, replace(APP, state="exited")], [], [], "an app's end is the user's restart policy's business"),
        ([POD, SIDECAR, replace(APP, state="exited", error="cannot join")], ["web"], ["start web"], "the engine tried and failed"),
        (
            [replace(CONSUL, state="exited", error="port is taken")],
            ["consul"],
            ["start consul"],
            "a restart that failed half-way says stop too",
        ),
        ([replace(CONSUL, state="created")], [], [], "`up` starts it in its turn"),
        ([replace(CONSUL, state="restarting")], [], [], "the engine is at it"),
        ([POD, replace(SIDECAR, state="paused"), replace(APP, state="paused")], [], [], "what is paused lives"),
        ([POD, SIDECAR, replace(APP, state="paused", started=EARLY)], [], ["restart web"], "paused or not, its network is gone"),
    ],
)
def test_repairs(containers, stopped, expected, because):
    found = [
        f"{'start' if one.start else 'restart'} {one.container.service}" for todo in repairs(containers, stopped).values() for one in todo
    ]
    assert found == expected, because


def test_an_app_is_given_its_own_grace_and_a_sidecar_without_a_network_hardly_any():
    todo = repairs([POD, replace(SIDECAR, started=EARLY), replace(APP, started=EARLY)], [])["web"]
    assert [one.grace for one in todo] == [1, None]


def test_the_engines_times_compare_whatever_zeros_it_leaves_out():
    assert started(container("a", "app", at="2026-11-29T03:00:00.5Z")) < started(container("a", "app", at="2026-11-29T03:00:00.500000001Z"))
    assert started(container("a", "app", at="2026-11-29T03:00:00Z")) < started(container("a", "app", at="2026-11-29T03:00:00.1Z"))


def event(action, service):
    return {"Action": action, "Actor": {"Attributes": {SERVICE_LABEL: service}}}


def test_a_stop_is_on_purpose_until_the_next_start():
    stopped = Stopped()
    for action in ("kill", "die", "stop"):
        stopped.notice(event(action, "web-pod"))
    stopped.notice(event("die", "api-pod"))
    assert stopped.names == {"web-pod"}
    stopped.notice(event("start", "web-pod"))
    assert stopped.names == set()


class Engine:
    def __init__(self, containers=(), events=()):
        self.did = []
        self._containers, self._events = containers, events

    def containers(self, project):
        return self._containers

    def events(self, project):
        yield from self._events

    def start(self, container):
        self.did.append(("start", container))

    def restart(self, container, grace):
        self.did.append(("restart", container, grace))

    def close(self):
        self.did.append(("close",))


def test_repairs_are_done_in_their_order():
    engine = Engine()
    todo = repairs([POD, replace(SIDECAR, state="exited"), replace(APP, started=EARLY)], [])["web"]
    Keeper("shop", lambda: engine)._do("web", todo)
    assert engine.did == [("start", "id-web-sidecar"), ("restart", "id-web", None), ("close",)]


@pytest.mark.parametrize(
    ("action", "role", "told"), [("die", "pod", ["web"]), ("kill", "pod", []), ("die", "sidecar", []), ("die", "app", [])]
)
def test_whose_pod_died_is_told_at_once(action, role, told):
    heard = []
    died = {"Action": action, "Actor": {"Attributes": {SERVICE_LABEL: "x", "devmesh.role": role, "devmesh.workload": "web"}}}
    script = iter([Engine([], [died]), Over()])

    def connect():
        step = next(script)
        if isinstance(step, BaseException):
            raise step
        return step

    with pytest.raises(Over):
        Keeper("shop", connect, away=0, gone=heard.append).follow()
    assert heard == told


async def test_a_workload_whose_pod_died_is_critical_at_once_and_a_registry_that_is_away_ends_nothing(caplog):
    class Registry:
        def __init__(self, error=None):
            self.error, self.said = error, []

        async def ttl_fail(self, check, note):
            if self.error:
                raise self.error
            self.said.append((check, note))

    registry = Registry()
    await take_out(registry, "web")
    assert registry.said == [("service:web", "its pod died")]
    await take_out(Registry(DevmeshError("no registry", "devmesh status")), "web")
    assert "web: no registry" in caplog.text


class Over(BaseException):
    """The script is at its end."""


def test_an_engine_that_was_away_is_followed_again_and_what_it_stopped_in_going_is_kept_up(caplog):
    away = DevmeshError("no Docker engine answers", "start it")
    first = Engine([POD, SIDECAR], [event("stop", "web-pod"), event("stop", "web-sidecar")])
    back = Engine([POD, replace(SIDECAR, state="exited")])
    script = iter([first, away, away, back, Over()])

    def connect():
        step = next(script)
        if isinstance(step, BaseException):
            raise step
        return step

    keeper = Keeper("shop", connect, away=0)
    with caplog.at_level("INFO"), pytest.raises(Over):
        keeper.follow()
    assert keeper._stopped.names == {"web-sidecar"}, "what the user stopped stays; the pod runs again"
    assert [one.getMessage() for one in caplog.records] == ["no Docker engine answers"], "told once"
