"""The square over real redirects: in a pod the kernel says where a connection was going, and the answers are those of the proxy port.

That those are Envoy's is test_requests.py's matter; the compiled configuration is the same, virtualOutbound and all.
"""

import os
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.pods.harness import OnePod, one_pod
from tests.square.apps import apps
from tests.square.client import Answer, ask
from tests.square.compilers import ours
from tests.square.dataplane import Place, our_sidecar, workload
from tests.square.test_requests import CALLER, CHANCE, ROUTED, TABLE
from tests.support.require import pods

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The square's VIPs are loopback addresses, which leave a pod only here.
REDIRECT_SQUARE = ("iptables", "-t", "nat", "-I", "OUTPUT", "-p", "tcp", "-d", "127.64.0.0/10", "-j", "REDIRECT", "--to-ports", "15001")
# What only the way differs in: the absolute form and the address that the caller has.
WAYS_OWN = ("x-forwarded-for", "x-envoy-external-address")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnePod]:
    pods()
    if os.getuid() != 0:
        pytest.skip("a connection from inside a pod's network takes root here")
    async with one_pod(tmp_path_factory.mktemp("square")) as pod:
        enter = ("nsenter", f"--target={pod.init_pid}", "--user", "--preserve-credentials", "--net")
        subprocess.run([*enter, *REDIRECT_SQUARE], check=True)
        yield pod


def comparable(answer: Answer) -> dict:
    found = answer.comparable()
    if "headers" in found.get("app", {}):
        found["app"]["headers"] = {name: value for name, value in found["app"]["headers"].items() if name not in WAYS_OWN}
    return found


@pytest.mark.parametrize("case", [case for case in ROUTED if case.stem[4:] not in CHANCE], ids=lambda case: case.stem)
async def test_a_redirected_request_is_answered_as_one_through_the_proxy_port(case, certificates, pod):
    xds = ours(case)[CALLER]
    async with apps(certificates) as places:
        place = Place(workload(CALLER), places, certificates)
        async with our_sidecar(xds, place) as way:
            by_proxy = [await ask(way(request), request) for request in TABLE]
        async with our_sidecar(xds, place, pod=pod) as way:
            redirected = [await ask(way(request), request) for request in TABLE]
    for request, one, other in zip(TABLE, redirected, by_proxy, strict=True):
        assert comparable(one) == comparable(other), request
