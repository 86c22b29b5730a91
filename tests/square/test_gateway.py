"""Gateways: requests from outside in all four corners, {our compiler, Istio's} x {our sidecar, Envoy}."""

import re

import pytest

from tests.square.apps import apps
from tests.square.client import INTERNAL, Answer, Request, ask
from tests.square.compilers import CASES, golden, ours, speaks_of
from tests.square.dataplane import Place, envoy, our_sidecar, workload

GATEWAY = "istio-ingressgateway"
# Those with TLS or TCP servers are test_gateway_tls.py's.
GATEWAYS = [
    case
    for case in CASES
    if speaks_of(case, "Gateway") and not re.search(r"\bmode: |protocol: TCP", case.read_text()) and not speaks_of(case, "ServiceEntry")
]
UNBOUND = ("gateway-other-selector",)  # it selects no workload here
TABLE = [
    Request(method, f"http://{host}{target}", headers, body)
    for host in ("a.example:8080", "b.example:8080", "reviews.default.svc.cluster.local:8080")
    for method, target, headers, body in [
        ("GET", "/productpage", {}, ""),
        ("GET", "/x/1?q=2", {"x-forwarded-for": "192.0.2.7", "x-request-id": "forged", "x-envoy-max-retries": "9"}, ""),
        ("POST", "/y", {"x-forwarded-client-cert": "forged"}, "body"),
        ("GET", "/g//h/../i", {"x-forwarded-proto": "https"}, ""),
        ("HEAD", "/x", {}, ""),
        ("GET", "/productpage/x", INTERNAL, ""),
        ("GET", "/status/503", {}, ""),
    ]
]
SECOND_PORT = [Request("GET", f"http://{host}:8081{target}") for host in ("a.example", "b.example") for target in ("/x", "/y")]


def binding() -> list[object]:
    return [case for case in GATEWAYS if case.stem[4:] not in UNBOUND]


def table(case) -> list[Request]:
    return TABLE + (SECOND_PORT if case.stem.endswith("-two-servers") else [])


async def corners(case, certificates, directory) -> dict[str, list[Answer]]:
    out = {}
    async with apps(certificates) as places:
        place = Place(workload(GATEWAY), places, certificates)
        for name, xds in (("our compiler", ours(case)[GATEWAY]), ("Istio's compiler", golden(case)[GATEWAY])):
            async with our_sidecar(xds, place) as way:
                out[f"{name}, our sidecar"] = [await ask(way(one), one) for one in table(case)]
            async with envoy(xds, place, directory / name[:3]) as way:
                out[f"{name}, Envoy"] = [await ask(way(one), one) for one in table(case)]
    return out


@pytest.mark.parametrize("case", binding(), ids=lambda case: case.stem)
async def test_a_gateway_answers_alike_in_all_four_corners(case, certificates, tmp_path):
    found = await corners(case, certificates, tmp_path)
    reference = found.pop("Istio's compiler, Envoy")
    for corner, answers in found.items():
        for request, answer, other in zip(table(case), answers, reference, strict=True):
            assert answer.comparable() == other.comparable(), (corner, request)


@pytest.mark.parametrize("case", [case for case in GATEWAYS if case.stem[4:] in UNBOUND], ids=lambda case: case.stem)
def test_where_no_gateway_selects_the_ingress_neither_compiler_makes_it_listen(case):
    assert [one["listeners"] for one in (ours(case)[GATEWAY], golden(case)[GATEWAY])] == [[], []]


# What the YAML promises of the first request to each host: status, and which app is reached.
EXPECTED = {
    "gateway": [(200, "productpage"), (200, "productpage"), (200, "productpage")],
    "gateway-host": [(404, ""), (404, ""), (404, "")],
    "gateway-https-redirect": [(301, ""), (301, ""), (301, "")],
}


@pytest.mark.parametrize("name", EXPECTED)
async def test_every_corner_does_what_the_yaml_says(name, certificates, tmp_path):
    case = next(case for case in GATEWAYS if case.stem[4:] == name)
    for corner, answers in (await corners(case, certificates, tmp_path)).items():
        first = [answers[index] for index in (0, 7, 14)]
        assert [(one.status, one.reached.rpartition("-")[0]) for one in first] == EXPECTED[name], corner


async def test_a_mutated_expectation_fails(certificates, tmp_path):
    one, other = (next(case for case in GATEWAYS if case.stem[4:] == name) for name in ("gateway", "gateway-host"))
    mine = (await corners(one, certificates, tmp_path))["our compiler, our sidecar"]
    theirs = (await corners(other, certificates, tmp_path / "other"))["Istio's compiler, Envoy"]
    assert mine[0].comparable() != theirs[0].comparable()
