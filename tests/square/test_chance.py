"""What chance decides in the square: how often each answer comes, in all four corners, over a fixed number of requests."""

import copy
from collections import Counter

import pytest

from tests.sidecar.sidecars import Records
from tests.square.apps import apps
from tests.square.client import Answer, Request, ask, ask_often
from tests.square.compilers import CASES, golden, ours
from tests.square.dataplane import Place, envoy, our_sidecar, workload
from tests.square.test_requests import CALLER, CHANCE
from tests.support.chance import plausible

TIMES = 1000
RAREST = 25  # of the answer that comes least often, this many are expected: that it does not come at all has a chance of e**-25
REQUEST = Request("GET", "http://reviews:9080/")
# Of the answers to one request: what tells them apart, and the share of each.
SHARES = {
    "weights": (lambda one: one.reached, {"reviews-v1": 0.8, "reviews-v2": 0.2}),
    "headers-weighted": (lambda one: (one.reached, one.headers["x-v"]), {("reviews-v1", "1"): 0.5, ("reviews-v2", "2"): 0.5}),
    "weights-three": (lambda one: one.reached, {"reviews-v1": 0.01, "reviews-v2": 0.02, "ratings-v1": 0.97}),
}


async def corners(case, certificates, directory, ask_each) -> dict[str, list[Answer]]:
    out = {}
    async with apps(certificates) as places:
        place = Place(workload(CALLER), places, certificates)
        for name, xds in (("our compiler", ours(case)[CALLER]), ("Istio's compiler", golden(case)[CALLER])):
            async with our_sidecar(xds, place) as way:
                out[f"{name}, our sidecar"] = await ask_each(way)
            async with envoy(xds, place, directory / name[:3]) as way:
                out[f"{name}, Envoy"] = await ask_each(way)
    return out


def case_of(name: str):
    return next(case for case in CASES if case.stem[4:] == name)


def test_every_case_of_chance_has_its_shares():
    """But for those that come in a thousandth of all requests."""
    assert {*SHARES, "fault-abort-fraction", "fault-delay-fraction"} == {*CHANCE}


@pytest.mark.parametrize("name", SHARES)
async def test_each_answer_comes_as_often_as_the_yaml_says(name, certificates, tmp_path):
    tell, shares = SHARES[name]
    times = max(TIMES, round(RAREST / min(shares.values())))
    found = await corners(case_of(name), certificates, tmp_path, lambda way: ask_often(way(REQUEST), REQUEST, times))
    for corner, answers in found.items():
        counts = Counter(tell(one) for one in answers)
        assert counts.keys() == shares.keys(), corner
        assert all(plausible(counts[key], share, times) for key, share in shares.items()), (corner, counts)


def test_a_mutated_share_is_noticed():
    assert plausible(900, 0.9, TIMES)
    assert not plausible(900, 0.95, TIMES)
    assert not plausible(830, 0.9, TIMES)
    assert plausible(29, 0.5, 29)  # 2e-9
    assert not plausible(30, 0.5, 30)


async def test_as_many_requests_are_delayed_as_the_yaml_says(certificates, tmp_path):
    """Told by the response flag, which both write into a header here; the delay itself is made short."""
    case = case_of("fault-delay-fraction")
    times = 400
    out = {}
    async with apps(certificates) as places:
        place = Place(workload(CALLER), places, certificates)
        for name, xds in (("our compiler", ours(case)[CALLER]), ("Istio's compiler", golden(case)[CALLER])):
            records = Records()
            async with our_sidecar(hurried(xds), place, records) as way:
                await ask_often(way(REQUEST), REQUEST, times)
                flags = [(await records.next()).flags.name for _ in range(times)]
                out[f"{name}, our sidecar"] = flags.count("DI")
            async with envoy(flagged(hurried(xds)), place, tmp_path / name[:3]) as way:
                answers = await ask_often(way(REQUEST), REQUEST, times)
                out[f"{name}, Envoy"] = [one.headers["x-flags"] for one in answers].count("DI")
    assert all(plausible(delayed, 0.125, times) for delayed in out.values()), out


def hurried(xds):
    out = copy.deepcopy(xds)
    for route in routes_of(out):
        fault = route.get("typed_per_filter_config", {}).get("envoy.filters.http.fault")
        if fault is not None:
            assert fault["delay"]["fixed_delay"] == "0.050s"
            fault["delay"]["fixed_delay"] = "0.001s"
    return out


def flagged(xds):
    out = copy.deepcopy(xds)
    for route in routes_of(out):
        route["response_headers_to_add"] = [{"header": {"key": "x-flags", "value": "%RESPONSE_FLAGS%"}}]
    return out


def routes_of(xds):
    return [route for table in xds["routes"] for host in table["virtual_hosts"] for route in host["routes"]]


async def test_a_generated_cookie_leads_back_to_the_app_that_it_was_given_by(certificates, tmp_path):
    """Its value is random here and follows from the connection in Envoy; both send it where its hash says, so each takes the other's."""

    async def twice(way) -> list[Answer]:
        first = await ask(way(REQUEST), REQUEST)
        cookie = first.headers["set-cookie"].partition(";")[0]
        return [first, await ask(way(REQUEST), Request("GET", REQUEST.url, {"cookie": cookie}))]

    found = await corners(case_of("dr-hash-cookie"), certificates, tmp_path, twice)
    cookies = [Request("GET", REQUEST.url, {"cookie": pair[0].headers["set-cookie"].partition(";")[0]}) for pair in found.values()]
    for corner, (first, second) in found.items():
        assert second.reached == first.reached, corner
        assert "set-cookie" not in second.headers

    async def with_cookies(way) -> list[Answer]:
        return [await ask(way(one), one) for one in cookies]

    again = await corners(case_of("dr-hash-cookie"), certificates, tmp_path / "again", with_cookies)
    reached = [[one.reached for one in answers] for answers in again.values()]
    assert reached == [reached[0]] * 4
