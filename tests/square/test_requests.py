"""The rows of the square: the same requests through our sidecar (our compiler's output) and Envoy (Istio's), answered alike.

Both columns are equal for every case (test_golden.py), so two of the four corners are run here and the other two follow. Cases with a
`.requests.yaml` say what to expect and run in all four corners (test_expectations.py).
"""

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from tests.square.compilers import CASES, golden, ours, topology
from tests.square.dataplane import Answer, Echo, envoy, origin_form, plain, request
from tests.support.require import envoy as envoy_binary

CALLER = "productpage-v1"
ROUTED = [case for case in CASES if "gateway" not in case.stem and "-pa-" not in case.stem]
# Cases whose answers depend on something that one of the two rows does not have, with the reason (docs/differences.md).
NOT_COMPARED = {
    "dr-passthrough": "the original destination is the VIP, which nothing listens on outside a redirect",
    "dr-tls-mutual": "the rows run without TLS; mTLS has its own tests",
    "headers-weighted": "which weighted destination answers is chance; the shares have a test of their own (tests/e2e)",
    "dr-hash-cookie": "the generated cookie is random",
    "dr-hash-cookie-path": "the generated cookie is random",
    "fault-delay-fraction": "which request is delayed is chance",
    "weights-three": "which weighted destination answers is chance",
    "dr-tls-simple": "the rows run without TLS",
    "dr-tls-simple-insecure": "the rows run without TLS",
    "dr-tls-simple-sans": "the rows run without TLS",
    "dr-tls-mutual-sni": "the rows run without TLS",
}
# Cases in which some answer differs, with the reason (docs/differences.md). Mending one makes its test fail, so that it leaves this list.
STILL_DIFFERENT = {
    "redirect-prefix": "Envoy puts a / in front of a redirect's path that has none, our sidecar does not",
    "cors-credentials": "Envoy answers allowMethods * of a policy with credentials otherwise",
    "dr-pool-h2-upgrade": "Istio's configuration upgrades to HTTP/2, which sidecars here carry as TCP",
}
Row = tuple[str, str, dict[str, str], str]
TABLE: list[Row] = [
    ("GET", "http://reviews:9080/", {}, ""),
    ("GET", "http://reviews:9080/a", {}, ""),
    ("GET", "http://reviews:9080/A/b?v=2", {"x-a": "b"}, ""),
    ("GET", "http://reviews:9080/a/17?v=abc", {"end-user": "jason", "x-a": "bcd", "x-b": "c"}, ""),
    ("POST", "http://reviews:9080/b", {"cookie": "user=jason", "x-c": "gone"}, "body"),
    ("GET", "http://reviews:9080/old/x?q=1", {}, ""),
    ("GET", "http://reviews:9080/service/foo/v1/api", {}, ""),
    ("GET", "http://reviews:9080/r/s", {"origin": "https://a.example"}, ""),
    ("OPTIONS", "http://reviews:9080/a", {"origin": "https://a.example", "access-control-request-method": "GET"}, ""),
    ("GET", "http://reviews:9080/p/s", {"content-type": "application/grpc", "te": "trailers"}, ""),
    ("GET", "http://reviews:9080/status/404", {}, ""),
    ("GET", "http://reviews:9080/status/503", {}, ""),
    ("HEAD", "http://reviews:9080/m", {}, ""),
    ("GET", "http://ratings:9080/x", {}, ""),
]


def names() -> list[dict[str, Any]]:
    table = {s.hostname: {"ips": [s.cluster_ip], "shortname": s.name, "namespace": s.namespace} for s in topology().services}
    return [{"table": table}]


def bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


async def through_sidecar(xds: dict[str, Any], table: list[Row]) -> list[Answer]:
    proxy = Proxy()
    proxy.apply(parse_snapshot({**xds, "names": names()}))
    sock = bound()
    port = sock.getsockname()[1]
    await proxy.listen([SocketSpec("outbound", "127.0.0.1", port, sock)])
    try:
        return [await request(port, method, url, {"host": origin_form(url)[0], **headers}, body) for method, url, headers, body in table]
    finally:
        await proxy.close()


async def through_envoy(xds: dict[str, Any], directory: Any, table: list[Row]) -> list[Answer]:
    answers = []
    async with envoy(envoy_binary(), xds, directory) as ports:
        for method, url, headers, body in table:
            host, port, target = origin_form(url)
            answers.append(await request(ports[port], method, target, {"host": host, **headers}, body))
    return answers


@contextlib.asynccontextmanager
async def apps() -> AsyncIterator[dict[str, int]]:
    """An echo server for every workload: {workload IP: loopback port}."""
    echoes = {workload.ip: Echo(workload.name) for workload in topology().workloads}
    for echo in echoes.values():
        await echo.start()
    try:
        yield {ip: echo.port for ip, echo in echoes.items()}
    finally:
        for echo in echoes.values():
            await echo.stop()


async def both(case: Any, directory: Any) -> tuple[list[Answer], list[Answer]]:
    async with apps() as addresses:
        mine = await through_sidecar(plain(ours(case)[CALLER], addresses), TABLE)
        return mine, await through_envoy(plain(golden(case)[CALLER], addresses), directory, TABLE)


@pytest.mark.parametrize("case", [case for case in ROUTED if case.stem[4:] not in NOT_COMPARED], ids=lambda case: case.stem)
async def test_our_sidecar_answers_as_envoy(case, tmp_path):
    mine, theirs = await both(case, tmp_path)
    if case.stem[4:] in STILL_DIFFERENT:
        assert [one.comparable() for one in mine] != [one.comparable() for one in theirs]
        return
    for row, ours_answer, envoys_answer in zip(TABLE, mine, theirs, strict=True):
        assert ours_answer.comparable() == envoys_answer.comparable(), row[:3]


async def test_a_mutated_expectation_fails(tmp_path):
    case = next(case for case in CASES if case.stem.endswith("-fault-abort"))
    mine, _ = await both(case, tmp_path)
    assert mine[0].status == 503
    plain_case = next(case for case in CASES if case.stem.endswith("-plain"))
    _, theirs = await both(plain_case, tmp_path)
    assert mine[0].comparable() != theirs[0].comparable()
