"""What a wait looks for, whom it names while it lasts, and what it says when time is up."""

from __future__ import annotations

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.waiting import Awaited, Lack, Wait, apps_lack, configuration_lacks, processes_lack, traffic_lacks


class Clock:
    """A second passes with each look at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def looks(*answers):
    """A look that answers what the script says, the last one for ever."""
    script = list(answers)

    async def look():
        return script.pop(0) if len(script) > 1 else script[0]

    return look


WEB, DB = Lack("web", "is not running", "web"), Lack("db", "its sidecar is not connected", "db-sidecar")


async def test_a_phase_tells_its_seconds_and_whom_it_waits_for_when_that_changes():
    told = []
    await Wait(told.append, 100, lambda _: [], Clock()).phase("apps", looks([WEB, DB], [DB, WEB], [DB], []))
    assert [one["event"] for one in told] == ["phase", "waiting", "waiting", "phase_done"]
    assert [one["for"] for one in told if one["event"] == "waiting"] == [["db", "web"], ["db"]]
    assert (told[-1]["name"], told[-1]["seconds"] > 0) == ("apps", True)


async def test_what_is_so_already_takes_one_look_whatever_the_limit():
    told = []
    await Wait(told.append, 0, lambda _: [], Clock()).phase("apps", looks([]))
    assert [one["event"] for one in told] == ["phase", "phase_done"]


async def test_when_time_is_up_everything_missing_is_named_with_the_last_twenty_lines_of_the_first_log_that_has_some():
    logs = {"db-sidecar": [f"line {number}" for number in range(30)]}
    with pytest.raises(DevmeshError) as caught:
        await Wait(lambda _: None, 5, lambda name: logs.get(name, []), Clock()).phase("apps", looks([WEB, DB]))
    assert caught.value.message.splitlines() == [
        "not everything was ready after 5 s:",
        "  web: is not running",
        "  db: its sidecar is not connected",
        "the last lines of db-sidecar:",
        *(f"line {number}" for number in range(10, 30)),
    ]
    assert caught.value.hint == "devmesh logs db-sidecar"


async def test_without_any_log_the_hint_is_status():
    with pytest.raises(DevmeshError) as caught:
        await Wait(lambda _: None, 5, lambda _: [], Clock()).phase("apps", looks([WEB]))
    assert caught.value.hint == "devmesh status"


def test_a_wait_that_is_over_at_once_needs_no_words():
    told = []
    Awaited(told.append, lambda: 0.0).see(["web"])
    assert told == []


def test_whom_it_waits_for_is_told_once_a_second_at_most_however_often_that_changes():
    told, now = [], [0.0]
    awaited = Awaited(told.append, lambda: now[0])
    for now[0], name in ((1.0, "web"), (1.2, "db"), (1.9, "web"), (2.1, "ca"), (2.2, "db")):
        awaited.see([name])
    assert [one["for"] for one in told] == [["web"], ["ca"]]


def process(name, *, ready=False, status=None, **more):
    return {"name": name, "ready": ready, "status": status, **more}


def test_processes_that_are_not_ready_are_named_with_their_status():
    found = processes_lack([process("ca", ready=True), process("web", status=3), process("db"), process("job", state="exited", status=0)])
    assert [str(one) for one in found] == ["web: ended with status 3", "db: is not ready"]


def test_a_process_that_ended_and_has_just_been_started_again_is_said_to_have_ended():
    assert [str(one) for one in processes_lack([process("web", last_status=3)])] == ["web: ended with status 3"]
    assert processes_lack([process("web", ready=True, last_status=3)]) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"compiled": True, "sidecars": [{"workload": "web", "state": "acked", "error": None}]}, []),
        (
            {"compiled": True, "sidecars": [{"workload": "web", "state": "nacked", "error": "no such cluster"}]},
            ["web: its sidecar refuses the newest configuration: no such cluster"],
        ),
        (
            {"compiled": True, "sidecars": [{"workload": "web", "state": "pending", "error": None}]},
            ["web: its sidecar has not acknowledged the newest configuration"],
        ),
        (
            {"compiled": True, "sidecars": [{"workload": "web", "state": "disconnected", "error": None}]},
            ["web: its sidecar is not connected to the control plane"],
        ),
        (
            {"compiled": False, "sidecars": [], "problem": "no registry"},
            ["control plane: has not compiled the newest configuration: no registry"],
        ),
    ],
)
def test_the_newest_configuration_must_be_acknowledged_by_every_sidecar(answer, expected):
    assert [str(one) for one in configuration_lacks(answer)] == expected


def test_an_app_without_connections_is_named_in_its_sidecars_words_and_a_gateway_has_none():
    found = apps_lack(
        [
            {"name": "web", "healthy": False, "gateway": False, "detail": "10.0.0.1:80: Connection refused"},
            {"name": "gateway", "healthy": False, "gateway": True, "detail": ""},
            {"name": "db", "healthy": True, "gateway": False, "detail": ""},
        ]
    )
    assert [str(one) for one in found] == ["web: its app takes no connections: 10.0.0.1:80: Connection refused"]


@pytest.mark.parametrize(
    ("workloads", "endpoints", "expected"),
    [
        ([{"name": "web", "gateway": False, "synced": True}, {"name": "gw", "gateway": True, "synced": True}], ["web"], []),
        ([{"name": "web", "gateway": False, "synced": True}], [], ["web: its callers are not told of it yet"]),
        ([{"name": "gw", "gateway": True, "synced": False}], [], ["gw: its sidecar has not acknowledged its newest configuration"]),
    ],
)
def test_an_app_gets_traffic_when_its_callers_have_acknowledged_its_endpoint(workloads, endpoints, expected):
    assert [str(one) for one in traffic_lacks(iter(workloads), endpoints)] == expected


@pytest.mark.parametrize(
    ("process", "lack"),
    [
        ({"health": {"status": "starting", "output": ""}}, "db: its healthcheck says starting"),
        ({"health": {"status": "unhealthy", "output": "a\nb\nc\nd"}}, "db: its healthcheck says unhealthy: b\nc\nd"),
        ({"health": {"status": "unhealthy", "output": "x" * 4096}}, f"db: its healthcheck says unhealthy: ...{'x' * 300}"),
        ({"waits": "waits for disk to start"}, "db: waits for disk to start"),
        ({}, "db: is not ready"),
    ],
)
def test_why_an_app_is_not_ready_is_what_its_healthcheck_or_its_order_says(process, lack):
    assert [str(one) for one in processes_lack([{"name": "db", "ready": False, "status": None, **process}])] == [lack]
