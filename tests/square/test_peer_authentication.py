"""PeerAuthentication: who may call a workload, in all four corners; and that callers keep in step with it.

Callers are plain HTTP, mTLS as a sidecar speaks it, mTLS with a foreign certificate or none, and TLS of the app's own.
"""

from pathlib import Path

import pytest

from devmesh.sidecar.record import Direction
from tests.square.apps import apps
from tests.square.client import Answer, Request, ask, ask_often
from tests.square.compilers import CASES, WORKLOADS, golden, ours, speaks_of
from tests.square.dataplane import Place, envoy, our_sidecar, workload
from tests.square.test_requests import CALLER

CASES_HERE = [case for case in CASES if speaks_of(case, "PeerAuthentication")]
CALLED = [name for name in WORKLOADS if name not in (CALLER, "istio-ingressgateway")]
SVID = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
MESH = ("istio-http/1.1",)


def callers(certificates) -> dict[str, dict[str, object]]:
    sni = "outbound_.9080_._.reviews.default.svc.cluster.local"
    return {
        "plain": {},
        "mTLS": {"tls": certificates.caller(SVID, MESH), "server_name": sni},
        "mTLS, ALPN istio": {"tls": certificates.caller(SVID, ("istio",)), "server_name": sni},
        "mTLS of another CA": {"tls": certificates.caller(SVID, MESH, foreign=True), "server_name": sni},
        "TLS with the mesh's ALPN, no certificate": {"tls": certificates.caller(None, MESH), "server_name": sni},
        "TLS to the app": {"tls": certificates.caller(None, ()), "server_name": "reviews"},
        "TLS with a certificate, no ALPN": {"tls": certificates.caller(SVID, ()), "server_name": sni},
    }


def table(certificates) -> list[tuple[str, Request]]:
    """Every caller to the service's port and to ports that no service has."""
    return [
        (f"{who} to {port}", Request("GET", f"http://app:{port}/x", {"x-forwarded-client-cert": "forged"}, **how))
        for port in (9080, 8000, 7777)
        for who, how in callers(certificates).items()
    ]


async def corners(case: Path, name: str, certificates, directory: Path) -> dict[str, dict[str, Answer]]:
    requests = table(certificates)
    out = {}
    async with apps(certificates) as places:
        place = Place(workload(name), places, certificates, Direction.INBOUND)
        for compiler, xds in (("our compiler", ours(case)[name]), ("Istio's compiler", golden(case)[name])):
            async with our_sidecar(xds, place) as way:
                out[f"{compiler}, our sidecar"] = {who: await ask(way(one), one) for who, one in requests}
            async with envoy(xds, place, directory / compiler[:3]) as way:
                out[f"{compiler}, Envoy"] = {who: await ask(way(one), one) for who, one in requests}
    return out


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.parametrize("case", CASES_HERE, ids=lambda case: case.stem)
async def test_a_workload_lets_in_whom_istio_lets_in(case, name, certificates, tmp_path):
    found = await corners(case, name, certificates, tmp_path)
    reference = found.pop("Istio's compiler, Envoy")
    for corner, answers in found.items():
        for who, answer in answers.items():
            assert answer.comparable() == reference[who].comparable(), (corner, who)


@pytest.mark.parametrize("case", CASES_HERE, ids=lambda case: case.stem)
async def test_a_caller_keeps_in_step(case, certificates, tmp_path):
    """Plain where the called one has mTLS disabled, else with its certificate: the app behind stands for the called sidecar."""
    async with apps(certificates) as places:
        place = Place(workload(CALLER), places, certificates)
        async with our_sidecar(ours(case)[CALLER], place) as way:
            mine = await seen_by_each(way)
        async with envoy(golden(case)[CALLER], place, tmp_path) as way:
            theirs = await seen_by_each(way)
    assert mine == theirs


async def seen_by_each(way) -> dict[str, object]:
    """By app, since of a service's workloads some may have mTLS; in 40 requests each is reached, but for once in four million runs."""
    found = {}
    for host in ("reviews:9080", "ratings:9080", "httpbin:8000"):
        request = Request("GET", f"http://{host}/x")
        for answer in await ask_often(way(request), request, 40):
            found.setdefault(answer.reached, answer.comparable())
            assert found[answer.reached] == answer.comparable()
    return found


def let_in(answers: dict[str, Answer]) -> set[str]:
    """Who reaches the app through the service's port."""
    return {who.removesuffix(" to 9080") for who, one in answers.items() if who.endswith(" to 9080") and one.reached}


# What the modes promise of reviews-v1's port 9080, and who is never let in.
ANYBODY = {"mTLS of another CA", "TLS with the mesh's ALPN, no certificate"}
PROMISED = {
    "pa-mesh-strict": {"mTLS", "mTLS, ALPN istio", "TLS with a certificate, no ALPN"},
    "pa-port-strict": {"mTLS", "mTLS, ALPN istio", "TLS with a certificate, no ALPN"},
    "pa-workload-disable": {"plain"},
    "pa-port": {"plain"},
    "pa-permissive-over-strict": {"plain", "mTLS", "mTLS, ALPN istio"},
}


@pytest.mark.parametrize("name", PROMISED)
async def test_every_corner_keeps_the_promise_of_its_mode(name, certificates, tmp_path):
    case = next(case for case in CASES_HERE if case.stem[4:] == name)
    for corner, answers in (await corners(case, "reviews-v1", certificates, tmp_path)).items():
        assert let_in(answers) & ANYBODY == set(), corner
        assert let_in(answers) == PROMISED[name], corner


async def test_a_mutated_expectation_fails(certificates, tmp_path):
    strict, permissive = (
        next(case for case in CASES_HERE if case.stem[4:] == name) for name in ("pa-mesh-strict", "pa-permissive-over-strict")
    )
    mine = (await corners(strict, "reviews-v1", certificates, tmp_path))["our compiler, our sidecar"]
    theirs = (await corners(permissive, "reviews-v1", certificates, tmp_path / "other"))["Istio's compiler, Envoy"]
    assert let_in(mine) != let_in(theirs)
    assert mine["plain to 9080"].comparable() != theirs["plain to 9080"].comparable()
