import random

import pytest

from devmesh.sidecar.config import CircuitBreakers, OutlierDetection, RetryPolicy
from devmesh.sidecar.matching import header_matcher
from devmesh.sidecar.resilience import ClusterLoad, Failure, Outcome, OutlierDetector, Recent, backoff, should_retry


class Never(random.Random):
    """Chance that never favours an enforcement below 100 percent."""

    def random(self):
        return 0.999999


def policy(on, **fields):
    return RetryPolicy(frozenset(on.split(",")), 2, None, fields.pop("codes", frozenset()), **fields)


# Rows as observed on Envoy 1.40: which `retry_on` makes it try again after a per-try timeout, a connection closed before the answer,
# one that was refused, and an answer with grpc-status 14.
OBSERVED = {
    "5xx": "timeout,reset,connect",
    "gateway-error": "timeout,reset,connect",
    "reset": "timeout,reset,connect",
    "reset-before-request": "connect",
    "connect-failure": "connect",
    "refused-stream": "",
    "retriable-4xx": "",
    "unavailable": "grpc",
    "envoy-ratelimited": "",
}
OUTCOMES = {
    "timeout": Outcome(Failure.TIMEOUT),
    "reset": Outcome(Failure.RESET),
    "connect": Outcome(Failure.CONNECT),
    "grpc": Outcome(Failure.NONE, 200, [(b"grpc-status", b"14")]),
}


@pytest.mark.parametrize("on", OBSERVED)
def test_an_attempt_without_an_answer_is_retried_as_envoy_does(on):
    assert ",".join(name for name, outcome in OUTCOMES.items() if should_retry(policy(on), outcome)) == OBSERVED[on]


def test_a_request_that_never_left_is_retried_before_request():
    assert should_retry(policy("reset-before-request"), Outcome(Failure.RESET_BEFORE_REQUEST))
    assert not should_retry(policy("connect-failure"), Outcome(Failure.RESET_BEFORE_REQUEST))


LIMITED = [(b"x-envoy-ratelimited", b"true")]


@pytest.mark.parametrize(
    ("on", "status", "headers", "expected", "why"),
    [
        ("5xx", 500, [], True, "any server error"),
        ("5xx", 599, [], True, "any server error"),
        ("5xx", 499, [], False, "no client error"),
        ("gateway-error", 502, [], True, "a gateway's"),
        ("gateway-error", 503, [], True, "a gateway's"),
        ("gateway-error", 504, [], True, "a gateway's"),
        ("gateway-error", 500, [], False, "not the app's own"),
        ("retriable-4xx", 409, [], True, "a conflict"),
        ("retriable-4xx", 404, [], False, "nothing else"),
        ("retriable-status-codes", 418, [], True, "a listed one"),
        ("retriable-status-codes", 503, [], False, "Istio's default lists none"),
        ("connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", 503, [], False, "Istio's default leaves 503 alone"),
        ("cancelled", 200, [(b"grpc-status", b"1")], True, "gRPC by name"),
        ("deadline-exceeded", 200, [(b"grpc-status", b"4")], True, "gRPC by name"),
        ("resource-exhausted", 200, [(b"grpc-status", b"8")], True, "gRPC by name"),
        ("internal", 200, [(b"grpc-status", b"13")], True, "gRPC by name"),
        ("unavailable", 200, [(b"grpc-status", b"13")], False, "only that one"),
        ("5xx", 503, LIMITED, False, "a rate-limited answer is not a server error (observed)"),
        ("envoy-ratelimited", 503, LIMITED, True, "it has its own condition"),
        ("envoy-ratelimited", 200, LIMITED, True, "whatever its status (observed)"),
        ("envoy-ratelimited", 429, [], False, "which asks for the header"),
        ("retriable-headers", 200, [(b"x-again", b"yes")], True, "an answer that says so"),
        ("retriable-headers", 200, [(b"x-again", b"no")], False, "in these words"),
        ("5xx", 200, [(b"x-again", b"yes")], False, "if it is asked for"),
        ("", 500, [], False, "no condition, no retry"),
    ],
)
def test_an_answer_is_retried(on, status, headers, expected, why):
    again = (header_matcher("r", {"name": "x-again", "string_match": {"exact": "yes"}}),)
    found = policy(on, codes=frozenset({418}), retriable_headers=again)
    assert should_retry(found, Outcome(Failure.NONE, status, headers)) is expected, why


def test_a_retriable_header_may_be_the_status():
    found = policy("retriable-headers", retriable_headers=(header_matcher("r", {"name": ":status", "string_match": {"exact": "425"}}),))
    assert should_retry(found, Outcome(Failure.NONE, 425))
    assert not should_retry(found, Outcome(Failure.NONE, 200))


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (40, 0.25)])
def test_a_retry_waits_at_random_up_to_a_limit_that_doubles(attempt, longest):
    waits = [backoff(policy("5xx"), attempt, random.Random(seed)) for seed in range(200)]
    assert 0 <= min(waits) < longest * 0.1
    assert longest * 0.9 < max(waits) < longest


@pytest.mark.parametrize(
    ("limits", "under_way", "retries", "expected", "why"),
    [
        (CircuitBreakers(), 0, 2, True, "three retries at once"),
        (CircuitBreakers(), 0, 3, False, "and no more"),
        (CircuitBreakers(max_retries=0), 0, 0, False, "none"),
        (CircuitBreakers(retry_budget_percent=20.0), 100, 19, True, "a budget of 20 % of what is under way"),
        (CircuitBreakers(retry_budget_percent=20.0), 100, 20, False, "and no more"),
        (CircuitBreakers(retry_budget_percent=20.0, retry_budget_min=3), 1, 2, True, "but three always"),
        (CircuitBreakers(max_retries=0, retry_budget_percent=20.0), 0, 0, True, "a budget replaces max_retries"),
    ],
)
def test_retries_are_held_against_the_circuit_breakers(limits, under_way, retries, expected, why):
    assert ClusterLoad(requests=under_way, retries=retries).admits_retry(limits, 0.0) is expected, why


def test_a_budget_with_an_interval_is_of_the_requests_that_began_in_it():
    """Asked of Envoy 1.40: what is under way and began earlier does not count, what is over does; an interval is ten tenths."""
    load = ClusterLoad(requests=50, recent=Recent(1.0))
    limits = CircuitBreakers(retry_budget_percent=50.0, retry_budget_min=0, retry_budget_interval=1.0)
    assert not load.admits_retry(limits, 10.0)
    for moment in (10.0, 10.5):
        load.recent.began(moment)
    assert load.admits_retry(limits, 10.6)
    assert load.admits_retry(limits, 10.94)
    assert not load.admits_retry(limits, 11.04)
    assert not load.recent.count(12.0)


def detector(hosts=3, **settings):
    defaults = {"consecutive_5xx": 2, "interval": 10.0, "base_ejection_time": 30.0, "max_ejection_percent": 100}
    found = OutlierDetector(OutlierDetection(**{**defaults, **settings}))
    found.keep(f"h{number}" for number in range(hosts))
    return found


def answers(found, key, *statuses, now=0.0, chance=None):
    return [found.answered(key, status, now, chance or random.Random(1)) for status in statuses]


@pytest.mark.parametrize(
    ("settings", "statuses", "ejected", "why"),
    [
        ({}, (500, 500), True, "two in a row"),
        ({}, (500, 200, 500), False, "a good answer starts again"),
        ({}, (500, 404, 500), False, "a client error is a good answer"),
        ({"consecutive_5xx": 0}, (500,) * 9, False, "0 switches it off"),
        ({"enforcing_consecutive_5xx": 0}, (500,) * 9, False, "found, but not enforced"),
        (
            {"consecutive_5xx": 9, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100},
            (503, 504),
            True,
            "gateway errors",
        ),
        (
            {"consecutive_5xx": 9, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100},
            (503, 500, 503),
            False,
            "another server error breaks their row",
        ),
        ({"consecutive_5xx": 9, "consecutive_gateway_failure": 2}, (503, 503), False, "they are not enforced unless asked for"),
    ],
)
def test_a_host_is_ejected(settings, statuses, ejected, why):
    found = detector(**settings)
    answers(found, "h0", *statuses, chance=Never())
    assert (found.ejected() == {"h0"}) is ejected, why


def test_only_the_answer_that_fills_the_row_ejects():
    assert answers(detector(), "h0", 500, 500, 500) == [False, True, False]


def test_a_local_failure_is_a_503_unless_it_is_told_apart():
    found = detector()
    assert [found.failed_locally("h0", 0.0, Never()) for _ in range(2)] == [False, True]
    apart = detector(split_local_origin=True, consecutive_local_origin_failure=3)
    assert [apart.failed_locally("h0", 0.0, Never()) for _ in range(3)] == [False, False, True]
    answered = detector(split_local_origin=True, consecutive_local_origin_failure=2)
    answered.failed_locally("h0", 0.0, Never())
    answers(answered, "h0", 500)
    assert not answered.failed_locally("h0", 0.0, Never()), "an answer, even a bad one, shows that the host can be reached"


@pytest.mark.parametrize(
    ("hosts", "percent", "always", "left", "why"),
    [
        (1, 10, False, 1, "one host is more than 10 %"),
        (3, 10, False, 3, "one of three too: Istio's default ejects nothing"),
        (3, 33, False, 3, "33.3 is more than 33"),
        (3, 34, False, 2, "and less than 34"),
        (3, 50, False, 2, "two would be too many"),
        (3, 67, False, 1, "two are not"),
        (3, 100, False, 0, "all"),
        (10, 10, False, 9, "exactly 10 %"),
        (10, 25, False, 8, "never more than 25 %"),
        (3, 10, True, 2, "one at least when it is asked for"),
        (3, 0, False, 3, "none"),
    ],
)
def test_no_more_than_max_ejection_percent_are_out_as_observed(hosts, percent, always, left, why):
    found = detector(hosts, max_ejection_percent=percent, always_eject_one=always)
    for number in range(hosts):
        answers(found, f"h{number}", 500, 500)
    assert hosts - len(found.ejected()) == left, why


def test_a_host_comes_back_on_the_interval_after_its_time_which_grows_and_shrinks():
    found = detector()
    found.tick(0.0)
    answers(found, "h0", 500, 500, now=1.0)
    found.tick(30.0)
    assert found.ejected() == {"h0"}, "29 of 30 seconds"
    found.tick(39.9)
    assert found.ejected() == {"h0"}, "its time is over, but not the interval"
    found.tick(40.0)
    assert found.ejected() == frozenset()
    answers(found, "h0", 500, 500, now=41.0)
    found.tick(80.0)
    assert found.ejected() == {"h0"}, "the second time lasts twice as long"
    found.tick(110.0)
    assert found.ejected() == frozenset()
    found.tick(120.0)
    found.tick(130.0)
    answers(found, "h0", 500, 500, now=131.0)
    found.tick(162.0)
    assert found.ejected() == frozenset(), "two quiet intervals have made up for it"


def test_an_ejection_never_lasts_longer_than_the_longest():
    found = detector(base_ejection_time=30.0, max_ejection_time=60.0)
    now = 0.0
    for _ in range(10):
        answers(found, "h0", 500, 500, now=now)
        now += 60.0
        found.tick(now)
        assert found.ejected() == frozenset()


def test_a_returned_host_starts_with_clean_counters():
    found = detector(consecutive_5xx=2)
    answers(found, "h0", 500, 500, 500, now=0.0)
    found.tick(100.0)
    assert answers(found, "h0", 500, now=101.0) == [False]
    assert found.ejected() == frozenset()


def test_hosts_that_left_are_forgotten_and_answers_of_theirs_do_not_count():
    found = detector(2)
    answers(found, "h0", 500, 500)
    found.keep(["h1", "h2"])
    assert found.ejected() == frozenset()
    assert answers(found, "h0", 500, 500) == [False, False]
    assert not found.failed_locally("h0", 0.0, Never())
    assert set(found.hosts) == {"h1", "h2"}
