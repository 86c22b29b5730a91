import random

import pytest

from devmesh.sidecar.config import FaultPolicy
from devmesh.sidecar.filters.fault import NO_FAULT, FaultDecision, decide
from devmesh.sidecar.matching import header_matcher
from tests.sidecar.snapshots import head

JASON = (header_matcher("r", {"name": "end-user", "string_match": {"exact": "jason"}}),)


@pytest.mark.parametrize(
    ("policy", "expected", "why"),
    [
        (None, NO_FAULT, "no policy"),
        (FaultPolicy(), NO_FAULT, "an empty one"),
        (FaultPolicy(abort_status=503, abort_fraction=1.0, fault_id="f"), FaultDecision(None, 503, None, "f"), "an abort, with its name"),
        (FaultPolicy(abort_grpc_status=14, abort_fraction=1.0), FaultDecision(None, None, 14), "an abort in gRPC's terms"),
        (FaultPolicy(abort_grpc_status=0, abort_fraction=1.0), FaultDecision(None, None, 0), "also with OK"),
        (FaultPolicy(delay=7.0, delay_fraction=1.0), FaultDecision(7.0), "a delay"),
        (
            FaultPolicy(delay=7.0, delay_fraction=1.0, abort_status=500, abort_fraction=1.0),
            FaultDecision(7.0, 500),
            "a delay, then an abort",
        ),
        (FaultPolicy(delay=7.0, delay_fraction=1.0, abort_status=500), FaultDecision(7.0), "each has its own share"),
        (FaultPolicy(abort_status=503), NO_FAULT, "a share of 0 is never"),
        (FaultPolicy(abort_fraction=1.0), NO_FAULT, "a share of nothing is nothing"),
        (FaultPolicy(abort_status=503, abort_fraction=1.0, headers=JASON), NO_FAULT, "for others only"),
    ],
)
def test_a_request_meets_a_fault(policy, expected, why):
    assert decide(policy, head(), random.Random(1)) == expected, why


def test_a_fault_may_be_for_some_requests():
    policy = FaultPolicy(abort_status=503, abort_fraction=1.0, headers=JASON)
    assert decide(policy, head("/", ("end-user", "jason")), random.Random(1)).aborts


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_of_the_requests_meets_it(share):
    rng = random.Random(3)
    policy = FaultPolicy(abort_status=503, abort_fraction=share)
    hits = sum(decide(policy, head(), rng).fires for _ in range(2000))
    assert abs(hits - 2000 * share) < 90


def test_the_same_seed_fires_at_the_same_requests():
    policy = FaultPolicy(delay=1.0, delay_fraction=0.3, abort_status=503, abort_fraction=0.3)
    one, two = random.Random(9), random.Random(9)
    assert [decide(policy, head(), one) for _ in range(50)] == [decide(policy, head(), two) for _ in range(50)]
