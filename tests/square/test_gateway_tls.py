"""Gateways' TLS: whom a server lets in, with which certificate it answers, and what the app is told; our sidecar and Envoy on Istio's output.

Our compiler's output is the same (test_golden.py).
"""

import ssl
from dataclasses import dataclass, field

import pytest

from devmesh.ca.memfd import load_pair
from tests.square.apps import apps
from tests.square.client import Answer, Request, ask
from tests.square.compilers import CASES, golden
from tests.square.dataplane import Place, envoy, our_sidecar, workload

GATEWAY = "istio-ingressgateway"
SPIFFE = "spiffe://cluster.local/ns/default/sa/x"
NAMES = ("a.example", "b.example", "c.example", "other.test", "")
TERMINATED, TCP = 8443, 31400


@dataclass(frozen=True)
class Caller:
    """One way to open a connection; an empty `name` sends no server name."""

    name: str
    who: str = "nobody"
    alpn: tuple[str, ...] = ("http/1.1",)
    versions: tuple[ssl.TLSVersion, ...] = ()
    headers: dict[str, str] = field(default_factory=dict, hash=False)

    def request(self, certificates, port) -> Request:
        tls = self._context(certificates) if port == TERMINATED else None
        return Request("GET", f"http://{self.name or 'a.example'}:{port}/x", self.headers, tls=tls, server_name=self.name)

    def _context(self, certificates) -> ssl.SSLContext:
        context = certificates.caller(None, self.alpn)
        own = certificates.client(self.who, SPIFFE)
        if own is not None:
            load_pair(context, own.certificate_chain, own.private_key)
        if self.versions:
            context.minimum_version, context.maximum_version = self.versions
        return context


FORGED = {"x-forwarded-client-cert": "Hash=forged", "x-forwarded-proto": "http"}
NOBODY = [Caller(name) for name in NAMES]
EVERYBODY = [*NOBODY, *(Caller("a.example", who, headers=FORGED) for who in ("web", "mesh", "foreign"))]
ONLY_12, ONLY_13 = (ssl.TLSVersion.TLSv1_2,) * 2, (ssl.TLSVersion.TLSv1_3,) * 2
VERSIONS = [Caller("a.example", versions=one) for one in (ONLY_12, ONLY_13)]
CALLERS = {
    "gateway-https-simple-credential": [*EVERYBODY, Caller("a.example", alpn=()), Caller("a.example", headers=FORGED)],
    "gateway-https-mutual-credential": EVERYBODY,  # no client has the name that it wants
    "gateway-https-mutual-files-sans": EVERYBODY,
    "gateway-https-mutual-hash": EVERYBODY,
    "gateway-https-optional-mutual-credential": EVERYBODY,
    "gateway-https-istio-mutual-sans": EVERYBODY,
    "gateway-https-versions": VERSIONS,
    "gateway-hosts-two": NOBODY,
    "gateway-hosts-all": NOBODY,
    "gateway-passthrough": NOBODY,
    "gateway-passthrough-and-https": NOBODY,
    "gateway-tls-terminated": NOBODY,
    "gateway-tcp": [Caller("a.example")],
}


def case_of(name):
    return next(case for case in CASES if case.stem[4:] == name)


async def rows(name, certificates, directory) -> dict[str, list[Answer]]:
    out = {}
    port = TCP if name == "gateway-tcp" else TERMINATED
    async with apps(certificates) as places:
        place = Place(workload(GATEWAY), places, certificates)
        xds = golden(case_of(name))[GATEWAY]
        for row, running in (("our sidecar", our_sidecar(xds, place)), ("Envoy", envoy(xds, place, directory))):
            async with running as way:
                requests = [one.request(certificates, port) for one in CALLERS[name]]
                out[row] = [await ask(way(request), request) for request in requests]
    return out


def told(answer: Answer) -> object:
    return answer.comparable(), answer.certificate, answer.alpn


@pytest.mark.parametrize("name", CALLERS)
async def test_a_servers_tls_answers_alike(name, certificates, tmp_path):
    found = await rows(name, certificates, tmp_path)
    for caller, ours, theirs in zip(CALLERS[name], found["our sidecar"], found["Envoy"], strict=True):
        assert told(ours) == told(theirs), caller


# What the YAML promises: the app that answers each caller, "" for who is not let in, None for a 404.
PROMISED = {
    "gateway-https-simple-credential": ["productpage", "", "", "", "", "productpage", "productpage", "productpage"],
    "gateway-https-mutual-files-sans": ["", "", "", "", "", "productpage", "", ""],
    "gateway-https-optional-mutual-credential": ["productpage", "", "", "", "", "productpage", "productpage", ""],
    "gateway-https-istio-mutual-sans": ["", "", "", "", "", "", "productpage", ""],
    "gateway-hosts-two": ["productpage", "reviews", "", "", ""],
    "gateway-hosts-all": ["productpage", "productpage", None, None, "productpage"],
    "gateway-passthrough-and-https": ["productpage", "", "store", "", ""],
}


@pytest.mark.parametrize("name", PROMISED)
async def test_our_sidecar_lets_in_whom_the_yaml_does(name, certificates):
    async with (
        apps(certificates) as places,
        our_sidecar(golden(case_of(name))[GATEWAY], Place(workload(GATEWAY), places, certificates)) as way,
    ):
        for caller, promised in zip(CALLERS[name], PROMISED[name], strict=False):
            request = caller.request(certificates, TERMINATED)
            answer = await ask(way(request), request)
            assert answer.reached.rpartition("-")[0] == (promised or ""), caller
            assert answer.status == {None: 404, "": 0}.get(promised, 200), caller
