"""Our compiler gives what Istio's gives, on every input (tests/square/normalise.py says what is dropped first)."""

import copy

import pytest

from tests.square.compilers import CASES, golden, ours

# Inputs on which we knowingly differ, with the reason (docs/differences.md). Mending one makes its test fail, so that it leaves this list.
KNOWN_DIFFERENCES: dict[str, str] = {
    "dr-pool-h2-upgrade": "sidecars carry HTTP/2 as plain TCP, so nothing is upgraded to it",
}


def test_the_square_covers_at_least_sixty_inputs():
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_our_compiler_equals_istios(case):
    mine, theirs = ours(case), golden(case)
    if case.stem[4:] in KNOWN_DIFFERENCES:
        assert mine != theirs
        return
    for workload, xds in theirs.items():
        for kind, resources in xds.items():
            assert mine[workload][kind] == resources, (workload, kind)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_golden_files_are_what_istios_compiler_says_today(case, istio):
    assert istio(case) == golden(case)


def test_a_changed_field_is_noticed():
    case = next(case for case in CASES if case.stem.endswith("-timeout"))
    changed = copy.deepcopy(golden(case))
    host = next(
        h for t in changed["productpage-v1"]["routes"] for h in t["virtual_hosts"] if h["name"] == "reviews.default.svc.cluster.local:9080"
    )
    host["routes"][0]["route"]["timeout"] = "0.6s"
    assert ours(case) != changed
