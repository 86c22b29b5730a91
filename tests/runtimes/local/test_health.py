"""How a healthcheck's runs are judged: the engine's rules, row by row."""

from __future__ import annotations

import pytest

from devmesh.config.healthcheck import Healthcheck
from devmesh.pods.check import Outcome
from devmesh.runtimes.local.health import HEALTHY, STARTING, UNHEALTHY, Health

GOOD, BAD = Outcome(0, ""), Outcome(1, "no")


def after(*runs, **check):
    """The status after these (outcome, age) runs."""
    health = Health(Healthcheck(("x",), **check))
    for outcome, age in runs:
        health.take(outcome, age)
    return health.status


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([], STARTING),
        ([(GOOD, 1)], HEALTHY),
        ([(BAD, 1), (BAD, 2)], STARTING),
        ([(BAD, 1), (BAD, 2), (BAD, 3)], UNHEALTHY),
        ([(BAD, 1), (BAD, 2), (GOOD, 3), (BAD, 4), (BAD, 5)], HEALTHY),
        ([(GOOD, 1), (BAD, 2), (BAD, 3), (BAD, 4)], UNHEALTHY),
        ([(BAD, 1), (BAD, 2), (BAD, 3), (GOOD, 4)], HEALTHY),
        ([(Outcome(-1, "timeout"), 1)] * 3, UNHEALTHY),
    ],
)
def test_retries_count_failures_in_a_row(runs, status):
    assert after(*runs, retries=3) == status


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([(BAD, 1), (BAD, 9.9)], STARTING),
        ([(BAD, 1), (BAD, 10)], UNHEALTHY),
        ([(GOOD, 1), (BAD, 2)], UNHEALTHY),
    ],
    ids=["within it failures do not count", "after it they do", "and within it, too, once it was healthy"],
)
def test_a_start_period_forgives(runs, status):
    assert after(*runs, retries=1, start_period=10.0) == status


@pytest.mark.parametrize(("runs", "age", "seconds"), [([], 0, 2), ([(BAD, 1)], 5, 2), ([(GOOD, 1)], 5, 30), ([], 10, 30)])
def test_while_it_starts_it_is_looked_at_more_often(runs, age, seconds):
    health = Health(Healthcheck(("x",), interval=30.0, start_period=10.0, start_interval=2.0))
    for run in runs:
        health.take(*run)
    assert health.next_wait(age) == seconds


def test_a_change_of_status_is_told():
    health = Health(Healthcheck(("x",), retries=1))
    assert [health.take(one, 0.0) for one in (GOOD, GOOD, BAD, BAD)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [(Outcome(1, "no disk"), "no disk"), (Outcome(-9, ""), "exit 137"), (Outcome(0, ""), ""), (Outcome(0, "ok"), "ok")],
)
def test_what_the_last_run_said(outcome, words):
    health = Health(Healthcheck(("x",)))
    assert health.words() == ""
    health.take(outcome, 0.0)
    assert health.to_json()["output"] == words
