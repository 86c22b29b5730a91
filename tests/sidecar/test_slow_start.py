"""Endpoints that join a cluster, and the share that they have meanwhile; time is an argument."""

import random
from collections import Counter

import pytest

from devmesh.sidecar.balancing import Balancer
from devmesh.sidecar.config import Cluster, Endpoint, SlowStart
from devmesh.sidecar.slow_start import Warming
from tests.sidecar import snapshots
from tests.sidecar.upstreams import upstreams

OLD = tuple(Endpoint(f"10.0.0.{number}", 80) for number in (1, 2))
NEW = Endpoint("10.0.0.3", 80)


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def idle(_key):
    return 0


@pytest.mark.parametrize(
    ("settings", "passed", "factor"),
    [
        (SlowStart(10.0), 0.0, 0.1),
        (SlowStart(10.0), 5.0, 0.5),
        (SlowStart(10.0), 10.0, 1.0),
        (SlowStart(10.0, aggression=2.0), 2.5, 0.5),
        (SlowStart(10.0, aggression=0.5), 5.0, 0.25),
        (SlowStart(10.0, min_weight=0.0), 0.0, 0.0001),
        (SlowStart(10.0, min_weight=0.7), 5.0, 0.7),
    ],
)
def test_a_new_endpoints_weight_grows_as_envoys_formula_says(settings, passed, factor):
    """max(min_weight_percent, (time / window) ^ (1 / aggression)), time being a millisecond at the least."""
    clock = Clock()
    warming = Warming(settings, clock)
    warming.keep(["a"])
    clock.seconds += passed
    assert warming.factor("a") == pytest.approx(factor)


def test_who_was_there_has_its_full_share_and_who_comes_back_begins_again():
    clock = Clock()
    warming = Warming(SlowStart(10.0), clock)
    warming.keep(["a", "b"])
    clock.seconds += 20
    warming.keep(["a"])
    assert not warming.under_way()
    warming.keep(["a", "b"])
    assert warming.under_way()
    assert (warming.factor("a"), warming.factor("b")) == (1.0, 0.1)


@pytest.mark.parametrize("policy", ["ROUND_ROBIN", "LEAST_REQUEST"])
def test_a_new_endpoint_gets_few_requests_then_its_share(policy):
    clock = Clock()
    warming = Warming(SlowStart(10.0), clock)
    warming.keep(f"{one.address}:80" for one in OLD)
    clock.seconds += 60
    warming.keep(f"{one.address}:80" for one in (*OLD, NEW))
    balancer = Balancer(Cluster("c", "EDS", policy, (*OLD, NEW)), frozenset(), warming)
    chance = random.Random(7)

    def share():
        return Counter(balancer.choose(None, idle, chance) for _ in range(2100))[NEW]

    assert 60 < share() < 140  # 0.1 of 2.1
    clock.seconds += 5
    assert 360 < share() < 480  # 0.5 of 2.5
    clock.seconds += 5
    assert 630 < share() < 770


def test_what_is_known_of_endpoints_outlives_configurations_and_ejections():
    ours, clock = upstreams(), Clock()
    ours.now = clock
    cluster = Cluster("c", "EDS", "ROUND_ROBIN", OLD, slow_start=SlowStart(10.0))
    ours.configure({"c": cluster})
    clock.seconds += 60
    grown = Cluster("c", "EDS", "ROUND_ROBIN", (*OLD, NEW), slow_start=SlowStart(10.0))
    ours.configure({"c": grown})
    chosen = Counter(ours.choose(grown, None, frozenset(), 0) for _ in range(210))
    assert chosen[NEW] == 10
    ours.configure({"c": grown})
    clock.seconds += 10
    assert Counter(ours.choose(grown, None, frozenset(), 0) for _ in range(210))[NEW] == 70


@pytest.mark.parametrize(
    ("fields", "expected", "why"),
    [
        ({"round_robin_lb_config": {"slow_start_config": {"slow_start_window": "60s"}}}, SlowStart(60.0), "Envoy's defaults"),
        (
            {
                "round_robin_lb_config": {
                    "slow_start_config": {
                        "slow_start_window": "60s",
                        "aggression": {"default_value": 2, "runtime_key": "("},
                        "min_weight_percent": {"value": 20},
                    }
                }
            },
            SlowStart(60.0, 2.0, 0.2),
            "as istiod writes a warmup",
        ),
        ({"round_robin_lb_config": {"slow_start_config": {"slow_start_window": "60s", "min_weight_percent": {}}}}, SlowStart(60.0, min_weight=0.0), "0"),
        ({"round_robin_lb_config": {"slow_start_config": {}}}, None, "no window"),
        ({"lb_policy": "RANDOM", "round_robin_lb_config": {"slow_start_config": {"slow_start_window": "60s"}}}, None, "another policy"),
        ({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"slow_start_config": {"slow_start_window": "1s"}}}, SlowStart(1.0), "here too"),
    ],
)  # fmt: skip
def test_it_is_read_of_the_policy_in_use(fields, expected, why):
    cluster = snapshots.cluster("c", **fields)
    assert snapshots.parsed(clusters=[cluster]).clusters["c"].slow_start == expected, why


def test_an_aggression_that_envoy_cannot_use_is_refused():
    config = {"slow_start_config": {"slow_start_window": "1s", "aggression": {"default_value": 0}}}
    assert "aggression 0 is not above 0" in snapshots.refusal(clusters=[snapshots.cluster("c", round_robin_lb_config=config)])
