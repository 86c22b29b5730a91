"""Hosts outside the mesh, from a sidecar and from the egress gateway: our sidecar and Envoy on Istio's output (ours is the same, test_golden.py)."""

import pytest

from tests.square.apps import apps
from tests.square.client import Answer, Request, ask
from tests.square.compilers import CASES, WITH_EGRESS, golden, topology
from tests.square.dataplane import Place, envoy, our_sidecar

OUTSIDE = [
    Request(method, f"http://{host}{target}", headers, body)
    for host in ("ext.example:8000", "ext.example:9080", "tls.example:8000", "ext.example:8080")
    for method, target, headers, body in [
        ("GET", "/x?q=1", {"x-forwarded-client-cert": "forged"}, ""),
        ("POST", "/y", {}, "body"),
        ("GET", "/late", {}, ""),
        ("GET", "/tls", {}, ""),
    ]
]
CASE = {"productpage-v1": "se-reached", "istio-egressgateway": "egress-reached"}
REACHED = {
    "productpage-v1": {"ext.example:8000": "httpbin", "ext.example:9080": "httpbin", "tls.example:8000": "store"},
    "istio-egressgateway": {"ext.example:8080": "httpbin"},
}


def asked(name: str) -> list[Request]:
    return [one for one in OUTSIDE if one.url.split("/")[2] in REACHED[name]]


async def answers(row, name, certificates, directory, case=None, table=None) -> list[Answer]:
    xds = golden(next(one for one in CASES if one.stem[4:] == (case or CASE[name])))[name]
    async with apps(certificates) as places:
        place = Place(topology(WITH_EGRESS).workload(name), places, certificates)
        async with our_sidecar(xds, place) if row == "ours" else envoy(xds, place, directory) as way:
            return [await ask(way(one), one) for one in table or asked(name)]


@pytest.mark.parametrize("name", CASE)
async def test_a_host_outside_is_reached_alike(name, certificates, tmp_path):
    ours, theirs = [await answers(row, name, certificates, tmp_path) for row in ("ours", "Envoy")]
    for request, mine, other in zip(asked(name), ours, theirs, strict=True):
        assert mine.comparable() == other.comparable(), request


@pytest.mark.parametrize("name", CASE)
async def test_what_is_reached_is_what_the_entry_says_and_tls_where_the_rule_does(name, certificates, tmp_path):
    for request, answer in zip(asked(name), await answers("ours", name, certificates, tmp_path), strict=True):
        if request.host == "tls.example" and request.target == "/late":
            assert answer.status == 418
            continue
        assert answer.reached.rpartition("-")[0] == REACHED[name][request.url.split("/")[2]], request
        over_tls = request.host == "tls.example" or (name == "istio-egressgateway" and request.target == "/tls")
        assert (answer.app_saw["tls"] or {}).get("sni") == ("localhost" if over_tls else None), request
        assert (answer.app_saw["tls"] or {}).get("client", []) == [], "no certificate of the mesh is shown outside"


IN_THE_MESH = {
    "http://two.example:8000/a": ("httpbin-vip", False),
    "http://two.example:9080/a": ("store-vip", False),
    "http://served.example:8000/a": ("ratings-v1", True),
    "http://other.example:8000/a": ("", False),
}


@pytest.mark.parametrize("row", ["ours", "Envoy"])
async def test_several_entries_have_one_host_and_workloads_that_an_entry_selects_are_reached_in_the_meshs_tls(row, certificates, tmp_path):
    table = [Request("GET", url) for url in IN_THE_MESH]
    found = await answers(row, "productpage-v1", certificates, tmp_path, "se-mesh", table)
    for answer, (reached, over_tls) in zip(found, IN_THE_MESH.values(), strict=True):
        assert (answer.status == 200, answer.reached) == (bool(reached), reached)
        assert not reached or bool(answer.app_saw["tls"]) is over_tls


@pytest.mark.parametrize("row", ["ours", "Envoy"])
async def test_an_address_in_several_ranges_belongs_to_the_longest(row, certificates, tmp_path):
    table = [Request("GET", f"http://203.0.113.7:{port}/a") for port in (6000, 7777)]
    found = await answers(row, "productpage-v1", certificates, tmp_path, "se-range-reached", table)
    assert [one.reached for one in found] == ["httpbin-vip", "store-vip"]
