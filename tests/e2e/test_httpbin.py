"""Istio's httpbin tasks with their own YAML: circuit breaking and mirroring."""

import json
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.e2e.conftest import RunningMesh, copy_sample, running, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def httpbin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    with running(copy_sample("httpbin", tmp_path_factory.mktemp("e2e") / "httpbin")) as mesh:
        yield mesh


@pytest.fixture
def clean_httpbin(httpbin: RunningMesh) -> Iterator[RunningMesh]:
    yield httpbin
    httpbin.clean()


def load(mesh: RunningMesh, url: str, connections: int, requests: int) -> Counter[int]:
    """What Fortio's run of that many requests was answered, by status."""
    fortio = mesh.json("status")["urls"]["services"]["fortio"]
    run = f"{fortio}/fortio/rest/run?url={quote(url, safe='')}&c={connections}&n={requests}"
    return Counter({int(code): count for code, count in json.loads(mesh.fetch(run))["RetCodes"].items()})


def access_log(mesh: RunningMesh, workload: str) -> list[str]:
    return [line for line in mesh.devmesh("logs", workload, "--access", "--tail", "5000").stdout.splitlines() if "HTTP/1.1" in line]


def test_one_connection_at_a_time_passes_the_circuit_breaker(clean_httpbin):
    clean_httpbin.devmesh("apply", "-f", "tasks/circuit-breaker.yaml")
    assert load(clean_httpbin, "http://httpbin:8000/get", 1, 20) == {200: 20}


def test_three_connections_trip_the_circuit_breaker_and_the_access_log_says_uo(clean_httpbin):
    clean_httpbin.devmesh("apply", "-f", "tasks/circuit-breaker.yaml")
    before = sum(" UO upstream_reset_before_response_started{overflow}" in line for line in access_log(clean_httpbin, "fortio"))
    answered = load(clean_httpbin, "http://httpbin:8000/delay/0.05", 6, 30)
    # While the only connection is being made its request is the one that may be pending: all others may fail before it is up.
    assert set(answered) == {200, 503}

    def counted() -> bool:
        lines = access_log(clean_httpbin, "fortio")
        return sum(" UO upstream_reset_before_response_started{overflow}" in line for line in lines) - before == answered[503]

    until(counted)


def test_without_the_rule_everything_is_answered(clean_httpbin):
    assert load(clean_httpbin, "http://httpbin:8000/delay/0.05", 6, 30) == {200: 30}


def test_mirrored_requests_reach_v2_and_v1_alone_answers(clean_httpbin):
    clean_httpbin.devmesh("apply", "-f", "tasks/all-to-v1.yaml")

    def served(workload: str, mark: str) -> list[str]:
        return [line for line in access_log(clean_httpbin, workload) if f"/headers?{mark} " in line and " inbound|" in line]

    load(clean_httpbin, "http://httpbin:8000/headers?alone", 1, 10)
    until(lambda: len(served("httpbin-v1", "alone")) == 10)
    assert served("httpbin-v2", "alone") == []
    clean_httpbin.devmesh("apply", "-f", "tasks/mirror-to-v2.yaml")
    assert load(clean_httpbin, "http://httpbin:8000/headers?copied", 1, 10) == {200: 10}
    until(lambda: len(served("httpbin-v1", "copied")) == len(served("httpbin-v2", "copied")) == 10)
