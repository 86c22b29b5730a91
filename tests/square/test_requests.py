"""The rows of the square: the same requests through our sidecar (our compiler's output) and Envoy (Istio's), answered alike.

Both columns are equal for every case (test_golden.py), so two of the four corners are run here and the other two follow. Cases with a
`.requests.yaml` say what to expect and run in all four corners (test_expectations.py).
"""

from typing import Any

import pytest

from tests.square.apps import apps
from tests.square.client import INTERNAL, Answer, Request, ask
from tests.square.compilers import CASES, golden, ours, speaks_of
from tests.square.dataplane import Place, envoy, our_sidecar, workload

CALLER = "productpage-v1"
# With a PeerAuthentication the question is who may call whom (test_peer_authentication.py); gateways are asked in test_gateway.py too.


def concerns_callers(case: Any) -> bool:
    """Not of what only a gateway's own configuration follows from, or only calls outside (test_gateway.py, test_gateway_tls.py, test_service_entry.py)."""
    return not speaks_of(case, "ServiceEntry") and (
        not speaks_of(case, "Gateway") or speaks_of(case, "DestinationRule") or "mesh" in case.read_text()
    )


ROUTED = [case for case in CASES if not speaks_of(case, "PeerAuthentication") and concerns_callers(case)]
# Cases whose answers are chance: tests/square/test_chance.py compares how often each one comes.
CHANCE = ("weights", "headers-weighted", "weights-three", "fault-abort-fraction", "fault-delay-fraction")
# Cases in which some answer differs, with the reason (docs/differences.md). Mending one makes its test fail, so that it leaves this list.
STILL_DIFFERENT = {
    "dr-pool-h2-upgrade": "Istio's configuration upgrades to HTTP/2, which sidecars here carry as TCP",
}
TABLE = [
    Request("GET", "http://reviews:9080/"),
    Request("GET", "http://reviews:9080/a"),
    Request("GET", "http://reviews:9080/A/b?v=2", {"x-a": "b"}),
    Request("GET", "http://reviews:9080/a/17?v=abc", {"end-user": "jason", "x-a": "bcd", "x-b": "c"}),
    Request("POST", "http://reviews:9080/b", {"cookie": "user=jason", "x-c": "gone"}, "body"),
    Request("GET", "http://reviews:9080/old/x?q=1"),
    Request("GET", "http://reviews:9080/service/foo/v1/api"),
    Request("GET", "http://reviews:9080/r/s", {"origin": "https://a.example"}),
    Request("OPTIONS", "http://reviews:9080/a", {"origin": "https://a.example", "access-control-request-method": "GET"}),
    Request(
        "OPTIONS",
        "http://reviews:9080/a",
        {"origin": "https://b.example", "access-control-request-method": "PUT", "access-control-request-headers": "x-q"},
    ),
    Request("GET", "http://reviews:9080/p/s", {"content-type": "application/grpc", "te": "trailers"}),
    Request("GET", "http://reviews:9080/status/404"),
    Request("GET", "http://reviews:9080/i", INTERNAL),
    Request("GET", "http://reviews:9080/status/503"),
    Request("HEAD", "http://reviews:9080/m"),
    Request("GET", "http://ratings:9080/x"),
]


async def through_sidecar(xds: Any, place: Place, table: list[Request]) -> list[Answer]:
    async with our_sidecar(xds, place) as way:
        return [await ask(way(request), request) for request in table]


async def through_envoy(xds: Any, place: Place, directory: Any, table: list[Request]) -> list[Answer]:
    async with envoy(xds, place, directory) as way:
        return [await ask(way(request), request) for request in table]


async def both(case: Any, certificates: Any, directory: Any) -> tuple[list[Answer], list[Answer]]:
    async with apps(certificates) as places:
        place = Place(workload(CALLER), places, certificates)
        mine = await through_sidecar(ours(case)[CALLER], place, TABLE)
        return mine, await through_envoy(golden(case)[CALLER], place, directory, TABLE)


@pytest.mark.parametrize("case", [case for case in ROUTED if case.stem[4:] not in CHANCE], ids=lambda case: case.stem)
async def test_our_sidecar_answers_as_envoy(case, certificates, tmp_path):
    mine, theirs = await both(case, certificates, tmp_path)
    if case.stem[4:] in STILL_DIFFERENT:
        assert [one.comparable() for one in mine] != [one.comparable() for one in theirs]
        return
    for request, ours_answer, envoys_answer in zip(TABLE, mine, theirs, strict=True):
        assert ours_answer.comparable() == envoys_answer.comparable(), request


async def test_a_mutated_expectation_fails(certificates, tmp_path):
    case = next(case for case in CASES if case.stem.endswith("-fault-abort"))
    mine, _ = await both(case, certificates, tmp_path)
    assert mine[0].status == 503
    plain_case = next(case for case in CASES if case.stem.endswith("-plain"))
    _, theirs = await both(plain_case, certificates, tmp_path)
    assert mine[0].comparable() != theirs[0].comparable()
