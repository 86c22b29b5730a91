"""Pods without an engine: apps of any language, unmodified, and what may go wrong with them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devmesh.runtimes.addons import dashboards
from devmesh.runtimes.processes import start_time
from tests.e2e.conftest import RunningMesh, running, until
from tests.support.dashboards import istio_dashboards, without_series
from tests.support.require import missing, pods, tool

pytestmark = pytest.mark.e2e
UNMODIFIED = Path(__file__).parent / "unmodified"


# What no request of these programs is: answered by a sidecar itself, or met by an injected fault.
ABOUT_FAULTS = re.compile(r'devmesh_fault_hits_total|response_flags!="-"')


def postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        missing("postgres", "PostgreSQL's server is not installed (apt-get install postgresql)")
    return found[-1].parent


@pytest.fixture(scope="module")
def unmodified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    pods()
    postgres_binaries()
    for name, command in (("node", "node"), ("java", "java"), ("go", "go"), ("redis", "redis-server")):
        tool(name, command)
    folder = tmp_path_factory.mktemp("e2e") / "unmodified"
    shutil.copytree(UNMODIFIED, folder)
    environment = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"}
    subprocess.run(["go", "build", "-o", "reviews", "reviews.go"], cwd=folder, env=environment, check=True)
    addons = ("--set", "addonComponents.prometheus.enabled=true") if shutil.which("prometheus") else ()
    with running(folder, "namespace", settings=addons) as mesh:
        yield mesh


def inside(mesh: RunningMesh, service: str, *command: str) -> str:
    return mesh.devmesh("exec", service, *command).stdout


def test_node_go_and_java_call_each_other_by_their_hard_coded_names_and_ports(unmodified):
    assert inside(unmodified, "redis", "curl", "-s", "http://front:9080/") == "node < go < java"
    assert inside(unmodified, "redis", "curl", "-s", "http://ratings:9080/back") == "java < go < java"


def test_their_calls_are_one_trace_and_counted_with_both_ends_identities(unmodified):
    unmodified.devmesh("curl", "redis", "http://front:9080/traced", "-H", f"traceparent: 00-{'7' * 31}1-{'3' * 16}-01")

    def spans() -> set[tuple[str, str]]:
        shown = unmodified.devmesh("traces", "show", f"{'7' * 31}1", "-o", "json", check=False)  # an error as long as there is none of it
        return {(span["service"], span["kind"]) for span in json.loads(shown.stdout or '{"spans": []}')["spans"]}

    wanted = {("front.default", "server"), ("front.default", "client"), ("reviews.default", "client"), ("ratings.default", "server")}
    until(lambda: wanted <= spans())
    port = unmodified.state()["workloads"]["ratings"]["prometheus"]
    metrics = unmodified.fetch(f"http://127.0.0.1:{port}/stats/prometheus")
    line = next(line for line in metrics.splitlines() if line.startswith("istio_requests_total{") and 'source_workload="reviews"' in line)
    assert 'connection_security_policy="mutual_tls"' in line
    assert 'source_principal="spiffe://cluster.local/ns/default/sa/reviews"' in line


@pytest.mark.parametrize("caller", ["front", "postgres"], ids=["another pod", "its own pod"])
def test_postgres_answers_psql_through_mtls(unmodified, caller):
    said = inside(unmodified, caller, "psql", "-h", "postgres", "-U", "postgres", "-Atc", "select 6 * 7")
    assert said.strip() == "42"


def test_postgres_answers_psql_outside_of_pods(unmodified):
    url = unmodified.state()["workloads"]["postgres"]["url"]
    host, _, port = url.removeprefix("http://").partition(":")
    said = subprocess.run(
        ["psql", "-h", host, "-p", port, "-U", "postgres", "-Atc", "select 6 * 7"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "42"


def test_redis_answers_redis_cli_through_mtls_and_from_outside(unmodified):
    assert inside(unmodified, "front", "redis-cli", "-h", "redis", "set", "colour", "green").strip() == "OK"
    url = unmodified.json("status")["urls"]["services"]["redis"]
    host, _, port = url.removeprefix("http://").partition(":")
    done = subprocess.run(["redis-cli", "-h", host, "-p", port, "get", "colour"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "green"


def test_the_databases_connections_are_in_their_sidecars_metrics_with_the_callers_identity(unmodified):
    inside(unmodified, "front", "redis-cli", "-h", "redis", "ping")
    port = unmodified.state()["workloads"]["redis"]["prometheus"]

    def counted() -> bool:
        lines = unmodified.fetch(f"http://127.0.0.1:{port}/stats/prometheus").splitlines()
        return any(
            line.startswith("istio_tcp_connections_closed_total{")
            and 'source_principal="spiffe://cluster.local/ns/default/sa/front"' in line
            for line in lines
        )

    until(counted)


def test_the_queries_of_istios_dashboards_and_of_ours_find_this_mesh_in_prometheus(unmodified):
    tool("prometheus", "prometheus")
    page = unmodified.json("status")["urls"]["mesh"]["prometheus"]
    assert unmodified.devmesh("dashboard", "prometheus").stdout.strip() == page
    outside = unmodified.json("status")["urls"]["services"]
    redis = outside["redis"].removeprefix("http://").split(":")

    def traffic() -> None:
        """With mutual TLS and without, HTTP and TCP, to a service of the mesh and to somebody else's."""
        unmodified.devmesh("curl", "redis", "http://front:9080/")
        unmodified.devmesh("curl", "front", "http://host.docker.internal:9080/")  # nobody is there: a request all the same
        unmodified.fetch(f"{outside['reviews']}/")
        inside(unmodified, "front", "redis-cli", "-h", "redis", "ping")
        subprocess.run(["redis-cli", "-h", redis[0], "-p", redis[1], "ping"], capture_output=True, check=True)

    choices = [
        {"service": f"{name}.default.svc.cluster.local", "workload": name, "namespace": "default"} for name in ("reviews", "front", "redis")
    ]
    wanted = [*istio_dashboards(), *dashboards()]
    left: list[str] = []

    def found() -> bool:
        traffic()
        left[:] = [one for one in without_series(page, wanted, choices) if not ABOUT_FAULTS.search(one)]
        return not left

    try:
        until(found, 120)
    except AssertionError:
        raise AssertionError("\n".join(left)) from None


def test_an_unknown_name_is_answered_at_once_and_the_machines_resolver_knows_the_rest(unmodified):
    done = unmodified.devmesh("exec", "front", "getent", "hosts", "nowhere.default.svc.cluster.local", check=False)
    assert done.returncode == 2
    assert inside(unmodified, "front", "getent", "hosts", "reviews.default.svc.cluster.local").split()[0].startswith("240.240.")


def test_the_hosts_loopback_is_host_docker_internal(unmodified):
    control = unmodified.state()["ports"]["control"]
    said = inside(unmodified, "front", "curl", "-s", "-H", "Host: 127.0.0.1", f"http://host.docker.internal:{control}/healthz/ready")
    assert said


def test_the_apps_see_istios_address_for_their_sidecar_and_no_variable_of_ours(unmodified):
    environment = inside(unmodified, "front", "sh", "-c", "tr '\\0' '\\n' < /proc/$(pgrep -o node)/environ")
    assert "PROXY" not in environment.upper().replace("NO_PROXY", "")
    assert "PORT=" not in environment


@contextmanager
def capture(*command: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """tcpdump, from the moment on when it listens."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert any(b"listening on lo" in line for line in process.stderr)
        yield process
    finally:
        process.terminate()
        process.communicate()


def test_inside_a_pod_is_plain_http_and_between_sidecars_only_tls(unmodified):
    tool("tcpdump", "tcpdump")
    if os.getuid() != 0:
        pytest.skip("a capture on the machine's loopback takes root")
    address = unmodified.state()["workloads"]["reviews"]["ip"]
    dump = ("tcpdump", "-i", "lo", "-l", "-A", "-s", "0", "-c", "12")
    data = "tcp[tcpflags] & tcp-push != 0"  # not the looks for whether the app listens
    devmesh = str(Path(sys.executable).with_name("devmesh"))
    inside_reviews = [devmesh, "exec", "reviews", *dump, f"tcp port 9080 and {data}"]
    outside = [*dump, f"dst host {address} and tcp port 9080 and {data}"]
    with capture(*inside_reviews, folder=unmodified.folder) as plain, capture(*outside, folder=unmodified.folder) as between:
        loop = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -s http://reviews:9080/secret-path; done"
        assert inside(unmodified, "redis", "sh", "-c", loop).count("go < java") == 12
        assert b"GET /secret-path HTTP/1.1" in plain.communicate(timeout=60)[0]
        seen = between.communicate(timeout=60)[0]
    assert seen
    assert b"HTTP/1.1" not in seen
    assert b"secret-path" not in seen


@pytest.mark.parametrize("part", ["front-pod", "front-sidecar", "front", "init"])
def test_a_killed_part_of_a_pod_comes_back_and_serves(unmodified, part):
    killed = unmodified.state()["workloads"]["front"]["init_pid"] if part == "init" else unmodified.pid(part)
    os.kill(killed, signal.SIGKILL)
    until(lambda: start_time(killed) is None)
    watched = "front-pod" if part == "init" else part
    until(lambda: unmodified.pid(watched) != killed and start_time(unmodified.pid(watched)) is not None)
    until(lambda: unmodified.devmesh("exec", "redis", "curl", "-s", "http://front:9080/", check=False).stdout == "node < go < java")
