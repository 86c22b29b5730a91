"""A compose file of five services on a real engine: two languages, two databases, two networks, replicas, a job; not a word of it about a mesh."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import orjson
import pytest

from devmesh.runtimes.claims import claim_usual_port
from devmesh.runtimes.docker.layout import COLLECTOR
from tests.e2e.conftest import ROOT, RunningMesh, own_name, running, until
from tests.support.dashboards import ask as ask_prometheus

pytestmark = pytest.mark.e2e
NO_GATEWAYS = ("--set", "profile=minimal")  # where they are not what is looked at
TLS_RECORDS = {20, 21, 22, 23}  # RFC 8446 section 5.1: change_cipher_spec, alert, handshake, application_data
# Prints the first payload byte of every TCP segment towards a port, from the namespace's own interfaces, until enough were seen.
SNIFF = """\
import socket, struct, sys
port, wanted = int(sys.argv[1]), int(sys.argv[2])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
print("listening", flush=True)
while wanted:
    data, (device, _, kind, *_) = sock.recvfrom(65535)
    head = (data[0] & 15) * 4
    if device == "lo" or data[9] != 6 or struct.unpack("!H", data[head + 2 : head + 4])[0] != port:
        continue
    body = data[head + (data[head + 12] >> 4) * 4 : struct.unpack("!H", data[2:4])[0]]
    if body:
        print(body[0], flush=True)
        wanted -= 1
"""
# Asks all at once, and prints who answered what.
ASK = """\
import socket, sys, threading
def ask(place):
    host, port = place.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=15) as sock:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            answer = sock.recv(4096)
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "nothing"
    return "upstream connect error" if b"upstream connect error" in answer else repr(answer) if answer else "nothing"
threads = [threading.Thread(target=lambda place=place: print(place, ask(place), flush=True)) for place in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
GATEWAYS = ("istio-ingressgateway", "istio-egressgateway")  # those of profile demo


# Prints what each name means by the system's resolver (/etc/hosts first) and by a question to the DNS server alone.
RESOLVE = """\
import socket, struct, sys
for name in sys.argv[1:]:
    try:
        found = socket.gethostbyname(name)
    except OSError:
        found = "-"
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\\0"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1), ("127.0.0.11", 53))
        answer = sock.recv(512)
    print(name, found, socket.inet_ntoa(answer[-4:]) if answer[7] else "-")
"""
# HTTP on a port that only the sidecar of web has; a port that nobody has; then a service by IPv6 addresses.
OUTSIDE = """\
curl -s -m 10 http://203.0.113.7:3000/ || echo -n "cut "
curl -s -m 10 http://203.0.113.7:8123/ || echo -n "cut "
curl -s -m 10 "http://[$1]:3000/" || echo -n "cut "
curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Host: web' 'http://[::ffff:'$2']:3000/'
"""
# What Istio's default policy repeats, and what an app that goes away makes its sidecar and its peers see.
RETRIES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api]
  http:
  - retries: {attempts: 3, retryOn: "connect-failure,refused-stream,unavailable,cancelled,reset,503"}
    route: [{destination: {host: api}}]
"""

# Istio's egress tasks: istio.io/latest/docs/tasks/traffic-management/egress, "Accessing External Services" and "Egress Gateways".
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
"""
EGRESS = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: istio-egressgateway}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [outside.example]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egressgateway-for-outside}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets: [{name: outside}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside-through-egress-gateway}
spec:
  hosts: [outside.example]
  gateways: [istio-egressgateway, mesh]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, subset: outside, port: {number: 80}}, weight: 100}]
  - match: [{gateways: [istio-egressgateway], port: 80}]
    route: [{destination: {host: outside.example, port: {number: 80}}, weight: 100}]
"""


@pytest.fixture(scope="module")
def five(
    docker_engine: docker.DockerClient, docker_environment: dict[str, str], devmesh_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMesh]:
    folder = tmp_path_factory.mktemp("docker") / "five"
    shutil.copytree(ROOT / "tests" / "e2e" / "five", folder)
    own_name(folder)
    compose = folder / "compose.yaml"
    compose.write_text(
        compose.read_text().replace("fd00:6465:766d::", f"fd00:6465:{os.getpid() & 0xFFFF:x}::")
    )  # another run's is on the same engine
    settings = ("--set", "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY", "--set", "addonComponents.prometheus.enabled=true")
    with running(folder, "auto", "docker", docker_environment, settings) as mesh:
        yield mesh


def url(mesh: RunningMesh) -> str:
    return mesh.json("status")["urls"]["services"]["web"]


def page(mesh: RunningMesh) -> str:
    return at(url(mesh))


def at(where: str) -> str:
    return subprocess.run(["curl", "-s", "-m", "10", where], capture_output=True, text=True, check=False).stdout


def attributes(engine: docker.DockerClient, mesh: RunningMesh) -> list[dict]:
    found = engine.containers.list(all=True, filters={"label": f"com.docker.compose.project={mesh.state()['project']}"})
    return [one.attrs for one in found]


def test_an_untouched_file_comes_up_meshed_and_its_services_reach_each_other(five):
    assert {one["service"] for one in five.json("status")["workloads"]} == {"web", "api", "db", "cache", "worker", *GATEWAYS}
    assert re.fullmatch(r"web: api api(-2)? redis :\d+ postgres R\s*", page(five)), page(five)
    where = url(five)
    seen = {at(where).split()[2] for _ in range(32)}  # by chance: all at one of the two would be once in 2**31 runs
    assert seen == {"api", "api-2"}, "both replicas answer"


def test_a_worker_on_one_network_reaches_a_service_that_is_on_two(five):
    until(lambda: "redis" in five.devmesh("logs", "worker", "--tail", "5").stdout)


def vip(mesh: RunningMesh, service: str) -> str:
    hosts = mesh.devmesh("exec", "worker", "--", "getent", "ahostsv4", service).stdout
    return hosts.split()[0]


def test_every_name_that_an_app_can_call_a_service_by_is_its_address_in_the_mesh_and_no_other_name_is(five):
    (address,) = {line.split()[0] for line in five.devmesh("exec", "api", "--", "getent", "ahostsv4", "db").stdout.splitlines()}
    assert address.startswith("240.240.")
    project = five.state()["project"]
    ours = ["db", "database", "db.default.svc.cluster.local"]
    others = ["db-pod", f"{project}-db-pod-1", "api-2", "consul", "control", "worker"]
    said = five.devmesh("exec", "api", "--", "python3", "-c", RESOLVE, *ours, *others).stdout.splitlines()
    assert said == [*(f"{name} {address} {address}" for name in ours), *(f"{name} - -" for name in others)]
    assert "the app asked for db-pod" in five.devmesh("logs", "api").stdout


def test_registry_only_cuts_what_is_no_service_by_ipv6_too(five, docker_engine):
    (pod,) = (one for one in attributes(docker_engine, five) if one["Name"].endswith("web-pod-1"))
    (six,) = filter(None, (one["GlobalIPv6Address"] for one in pod["NetworkSettings"]["Networks"].values()))
    said = five.devmesh("exec", "worker", "--", "sh", "-c", OUTSIDE, "sh", six, vip(five, "web")).stdout
    assert said == "cut cut cut 200"
    for destination in ("203.0.113.7:8123", f"{six}:3000"):  # as Envoy writes it
        until_logged(five, "worker", rf"0 UH .* BlackHoleCluster - {re.escape(destination)} ")


def until_logged(mesh: RunningMesh, workload: str, line: str) -> None:
    """Sidecars write their access logs in batches, the engine some time later."""
    until(lambda: re.search(line, mesh.devmesh("logs", workload, "--access").stdout) is not None)


@contextmanager
def outside(mesh: RunningMesh, environment: dict[str, str]) -> Iterator[str]:
    """A web server that is no part of the mesh, known as outside.example on one of its networks; gives its container."""
    image, network = environment["DEBIAN_IMAGE"], mesh.state()["networks"]["front"]
    command = ["docker", "run", "--detach", "--init", "--network", network, "--network-alias", "outside.example", image]
    made = subprocess.run([*command, "python3", "-u", "-m", "http.server", "80"], capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield made
    finally:
        subprocess.run(["docker", "rm", "--force", made], capture_output=True, check=True)


def test_a_host_outside_is_cut_until_a_service_entry_names_it_and_may_be_called_through_the_egress_gateway(five, docker_environment):
    (five.folder / "entry.yaml").write_text(ENTRY)
    (five.folder / "egress.yaml").write_text(EGRESS)
    call = ("exec", "worker", "--", "curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}")
    with outside(five, docker_environment) as server:

        def callers() -> list[str]:
            """Whom the server has seen, by address; it logs to standard error."""
            said = subprocess.run(["docker", "logs", server], capture_output=True, text=True, check=True)
            return [line.split()[0] for line in (said.stdout + said.stderr).splitlines() if "GET /" in line]

        assert five.devmesh(*call, "http://outside.example/cut", check=False).stdout == "502", "REGISTRY_ONLY: block_all, as in Istio"
        five.devmesh("apply", "-f", "entry.yaml")
        until(lambda: five.devmesh(*call, "http://outside.example/", check=False).stdout == "200")
        assert five.devmesh(*call, "http://outside.example/direct").stdout == "404"
        until_logged(five, "worker", r'"GET /direct HTTP/1.1" 404 .* outbound\|80\|\|outside.example ')
        five.devmesh("apply", "-f", "egress.yaml")
        assert five.devmesh(*call, "http://outside.example/through").stdout == "404"
        until_logged(five, "istio-egressgateway", r'"GET /through HTTP/[12.]+" 404 .* outbound\|80\|\|outside.example ')
        until(lambda: len(callers()) == 3)
        first, _, last = callers()
        assert first != last, "the last request came from the gateway"
    five.devmesh("delete", "-f", "egress.yaml")
    five.devmesh("delete", "-f", "entry.yaml")


def test_only_the_init_of_a_pod_may_have_a_capability_and_it_gives_it_up(five, docker_engine):
    found = {one["Name"]: one["HostConfig"]["CapAdd"] for one in attributes(docker_engine, five) if one["HostConfig"]["CapAdd"]}
    assert len(found) == 6
    assert all(name.endswith("-pod-1") and added == ["NET_ADMIN"] for name, added in found.items())
    status = subprocess.run(
        ["docker", "exec", five.container("api-pod"), "cat", "/proc/1/status"], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"CapPrm:\s0+\nCapEff:\s0+\n", status)


@pytest.mark.parametrize(("workload", "port"), [("api", 8000), ("db", 5432), ("cache", 6379), ("web", 3000)])
def test_only_tls_is_on_the_wire_between_pods(five, devmesh_image, workload, port):
    name = f"container:{five.container(f'{workload}-pod')}"
    command = ["docker", "run", "--rm", "--network", name, "--cap-add", "NET_RAW", "--user", "0", devmesh_image]
    callers = range(4)
    with subprocess.Popen([*command, "python3", "-c", SNIFF, str(port), "6"], stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "listening\n"
        for _ in callers:
            five.devmesh("exec", "worker", "--", "curl", "-s", "http://web:3000/")
        first = [int(line) for line in sniffer.stdout]
    assert set(first) <= TLS_RECORDS, "a plain request begins with a letter"


def targets(mesh: RunningMesh) -> dict[str, str]:
    """Whose metrics Prometheus asks for, and whether it gets them."""
    answer = orjson.loads(mesh.fetch(f"{mesh.json('status')['urls']['mesh']['prometheus']}/api/v1/targets"))
    return {one["labels"]["pod"]: one["health"] for one in answer["data"]["activeTargets"]}


def test_prometheus_scrapes_every_sidecar_and_the_control_plane(five):
    prometheus = five.json("status")["urls"]["mesh"]["prometheus"]
    wanted = dict.fromkeys([*five.state()["workloads"], "control"], "up")
    until(lambda: targets(five) == wanted)
    calls = 'istio_requests_total{reporter="destination", destination_app="api", connection_security_policy="mutual_tls"}'
    until(lambda: bool(page(five)) and ask_prometheus(prometheus, calls) > 0)


def test_the_collector_traces_the_apps_and_not_its_own_health_checks(five):
    jaeger = five.json("status")["urls"]["mesh"]["jaeger"]
    until(lambda: "web.default" in five.fetch(f"{jaeger}/api/services"))
    assert "jaeger" not in orjson.loads(five.fetch(f"{jaeger}/api/services"))["data"]


def test_an_apps_own_code_reaches_neither_registry_nor_ca_nor_control_plane(five, docker_engine):
    ports = {"consul": (8500,), "ca": (15011,), "control": (15012, 15014), "jaeger": (4318, 16686)}
    places = [
        f"{network['IPAddress']}:{port}"
        for one in attributes(docker_engine, five)
        for port in ports.get(one["Config"]["Labels"]["com.docker.compose.service"], ())
        for network in one["NetworkSettings"]["Networks"].values()
    ]
    assert len(places) == 13
    # Where apps send their spans, that port alone of the collector's is behind it.
    places += [f"{COLLECTOR.partition(':')[0]}:{port}" for port in (16686, 8500, 15012)]
    answers = five.devmesh("exec", "api", "--", "python3", "-c", ASK, *places, COLLECTOR).stdout.splitlines()
    (spans,) = (line for line in answers if line.startswith(f"{COLLECTOR} "))
    assert "HTTP/1.1 4" in spans, "it takes POST only"
    answers.remove(spans)
    assert len(answers) == len(places)
    # The sidecar takes a connection to any address outside the mesh, and cannot complete these.
    assert not [line for line in answers if line.partition(" ")[2] not in ("refused", "nothing", "upstream connect error")], answers


def test_an_app_that_mounts_the_project_folder_sees_none_of_its_secrets(five):
    assert five.devmesh("exec", "api", "--", "ls", "-A", "/code").stdout.split().count(".devmesh") == 1
    assert five.devmesh("exec", "api", "--", "ls", "-A", "/code/.devmesh").stdout == ""


def test_no_secret_is_in_what_the_engine_tells_of_its_containers(five, docker_engine):
    text = orjson.dumps(attributes(docker_engine, five)).decode() + (five.folder / ".devmesh" / "docker" / "compose.yaml").read_text()
    tokens = [path.read_text().strip() for path in (five.folder / ".devmesh").rglob("*token")]
    assert len(tokens) >= 9
    assert not [token for token in tokens if token in text]


def checks(mesh: RunningMesh) -> dict[str, str]:
    state = mesh.state()
    request = urllib.request.Request(
        f"http://127.0.0.1:{state['ports']['registry']}/v1/health/state/any",
        headers={"X-Consul-Token": (mesh.folder / ".devmesh" / "token").read_text()},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return {one["CheckID"].removeprefix("service:"): one["Status"] for one in orjson.loads(response.read())}


def test_consul_lists_every_workload_and_a_stopped_app_is_critical_and_gets_no_traffic(five):
    names = {"web", "api", "api-2", "db", "cache", "worker", "istio-ingressgateway", "istio-egressgateway"}
    assert {name: checks(five)[name] for name in names} == dict.fromkeys(names, "passing")
    five.devmesh("stop", "api-2")
    until(lambda: checks(five)["api-2"] == "critical")
    until(lambda: five.devmesh("proxy-config", "endpoints", "web").stdout.count("|8000|") == 1)
    where = url(five)
    assert {at(where).split()[2] for _ in range(10)} == {"api"}
    five.devmesh("start", "api-2")
    until(lambda: checks(five)["api-2"] == "passing")


@pytest.mark.parametrize(
    "name", ["consul", "ca", "control", "jaeger", "api-sidecar", "db-sidecar", "api-pod", "db-pod", "web-pod", "web-sidecar"]
)
def test_whatever_of_the_mesh_is_killed_comes_back_and_traffic_flows(five, name):
    subprocess.run(["docker", "kill", five.container(name)], capture_output=True, check=True)
    until(lambda: five.pid(name) > 0)
    five.devmesh("wait", "--timeout", "60s")
    if name.endswith("-pod"):
        sidecar = five.container(name.removesuffix("-pod") + "-sidecar")
        logs = subprocess.run(["docker", "logs", sidecar], capture_output=True, text=True, check=True).stderr
        assert "the pod is gone, and so are we" in logs, "its connections were closed at once"
    until(lambda: page(five).startswith("web: api"))


@contextmanager
def traffic(address: str, cut: int = 0) -> Iterator[None]:
    """Some 20 requests a second, each of which must be answered with 200, but for `cut` whose answer had begun: nobody retries those."""
    program = (
        "import sys, time, urllib.error, urllib.request\n"
        "print('begun', flush=True)\n"
        "cut = int(sys.argv[2])\n"
        "while not sys.stdin in __import__('select').select([sys.stdin], [], [], 0.05)[0]:\n"
        "    try:\n"
        "        with urllib.request.urlopen(sys.argv[1], timeout=20) as response: assert response.status == 200\n"
        "    except urllib.error.HTTPError as error:\n"
        "        said = error.read()\n"
        "        cut -= said.startswith(b'cut off: ')\n"
        "        if not said.startswith(b'cut off: ') or cut < 0: sys.exit(f'{error}: {said} {error.headers}')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, address, str(cut)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        _, said = process.communicate("\n", timeout=30)
    assert process.returncode == 0, said


@pytest.mark.parametrize("name", ["consul", "ca", "control", "jaeger", "api-2-sidecar", "web-sidecar"])
def test_a_restart_of_a_part_or_a_sidecar_under_traffic_fails_no_request(five, name):
    with traffic(url(five)):
        subprocess.run(["docker", "restart", five.container(name)], capture_output=True, check=True)
        five.devmesh("wait", "--timeout", "60s")


def test_an_app_or_pod_restarted_or_made_again_under_traffic_fails_no_request_where_a_route_retries_503(five):
    (five.folder / "retries.yaml").write_text(RETRIES)
    five.devmesh("apply", "-f", "retries.yaml")
    project, rendered = five.state()["project"], five.state()["rendered"]
    again = ["docker", "compose", "-p", project, "-f", rendered, "up", "--detach", "--force-recreate", "--no-deps", "api-2"]
    for command in (["docker", "restart", five.container("api-2")], ["docker", "restart", five.container("api-2-pod")], again):
        with traffic(url(five), cut=1):
            subprocess.run(command, capture_output=True, check=True)
            five.devmesh("wait", "--timeout", "60s")
    five.devmesh("delete", "virtualservice", "api")


def test_silence_pauses_and_kills_are_the_engines_and_end_with_their_faults(docker_engine, five):
    address = url(five)

    def hits() -> int:
        return sum(one["hits"] for one in five.json("fault", "list")["faults"])

    five.devmesh("fault", "inject", "--partition", "web", "api")
    with subprocess.Popen(["curl", "-s", "-m", "25", address], stdout=subprocess.PIPE, text=True) as waiting:
        until(lambda: hits() > 0)
        five.devmesh("fault", "clear")
        assert waiting.communicate()[0].startswith("web: api"), "what waited goes through when it heals"
    worker = docker_engine.containers.get(five.container("worker"))
    five.devmesh("fault", "inject", "worker", "--pause")
    worker.reload()
    assert worker.status == "paused"
    five.devmesh("fault", "clear", "worker")
    worker.reload()
    assert worker.status == "running"
    before = worker.attrs["State"]["StartedAt"]
    five.devmesh("fault", "inject", "worker", "--kill")
    worker.reload()
    assert (worker.status, worker.attrs["State"]["StartedAt"] > before) == ("running", True), "restart: always"
    five.devmesh("fault", "clear")


def test_a_shell_command_runs_in_the_apps_own_container(five):
    assert five.devmesh("exec", "db", "--", "psql", "-U", "postgres", "-tAc", "select 6*7").stdout.strip() == "42"


def test_a_restart_takes_along_who_asked_for_that(five):
    before = five.pid("worker")
    assert five.devmesh("restart", "web").stderr.strip() == "restart: web, worker"
    assert five.pid("worker") not in (0, before)
    until(lambda: page(five).startswith("web: api"))


def test_a_meshs_port_is_no_other_meshs_while_its_container_is_away(five):
    ports = five.state()["ports"]
    with five.away("jaeger"):
        for usual in (ports["query"], ports["otlp"]):
            port, held = claim_usual_port(usual)
            held.close()
            assert port != usual
    five.devmesh("wait", "--timeout", "60s")


def test_a_second_up_is_refused(five):
    done = five.devmesh("up", check=False)
    assert done.returncode == 1
    assert "is already up" in done.stderr


def test_nothing_is_left_after_down_and_volumes_go_when_asked(docker_engine, docker_environment, devmesh_image, tmp_path: Path):
    (tmp_path / "compose.yaml").write_text(
        "name: short\nservices: {one: {image: '${REDIS_IMAGE}', volumes: ['kept:/data']}}\nvolumes: {kept: {}}\n"
    )
    mesh = RunningMesh(tmp_path, runtime="docker", environment=docker_environment, settings=NO_GATEWAYS)
    mesh.up()
    label = {"label": "com.docker.compose.project=short"}
    mesh.devmesh("down")
    assert (docker_engine.containers.list(all=True, filters=label), docker_engine.networks.list(filters=label)) == ([], [])
    assert docker_engine.volumes.list(filters=label), "kept for the next up"
    docker_engine.volumes.create("short_mesh-grafana", labels={"com.docker.compose.project": "short"})  # of an up with that addon
    assert "nothing is up" in mesh.devmesh("down", "--volumes").stderr
    assert docker_engine.volumes.list(filters=label) == []
    assert not (tmp_path / ".devmesh").exists()


def test_an_app_that_fails_at_start_is_named_with_its_last_lines(docker_engine, docker_environment, devmesh_image, tmp_path: Path):
    (tmp_path / "compose.yaml").write_text(
        "name: failing\nservices: {bad: {image: '${DEBIAN_IMAGE}', command: [sh, -c, 'echo no database; exit 3'], expose: ['80']}}\n"
    )
    mesh = RunningMesh(tmp_path, runtime="docker", environment=docker_environment)
    done = mesh.devmesh("up", *NO_GATEWAYS, check=False)
    assert done.returncode == 1
    assert "bad exits at start (status 3); its last lines:\nno database" in done.stderr
    assert "hint: devmesh logs bad" in done.stderr
    mesh.devmesh("down", "--volumes")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {image: x, ports: 80}}\n", "services.a.ports"),
        ("services: {a: {image: x, network_mode: host}}\n", "a has network_mode: host"),
        ("services: {a: {image: 'devmesh-test/none:0'}}\n", "docker compose pull failed"),
        ("services: {a: {image: '${REDIS_IMAGE}', networks: [n]}}\nnetworks: {n: {external: true}}\n", "docker network create n"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_starts(docker_engine, docker_environment, devmesh_image, tmp_path, text, words):
    (tmp_path / "compose.yaml").write_text(f"name: refused\n{text}")
    mesh = RunningMesh(tmp_path, runtime="docker", environment=docker_environment)
    done = mesh.devmesh("up", check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "hint: " in done.stderr
    assert docker_engine.containers.list(all=True, filters={"label": "com.docker.compose.project=refused"}) == []


def test_a_down_while_up_runs_ends_it_and_leaves_nothing(docker_engine, docker_environment, devmesh_image, tmp_path):
    (tmp_path / "compose.yaml").write_text("name: halfway\nservices: {one: {image: '${REDIS_IMAGE}'}}\n")
    mesh = RunningMesh(tmp_path, runtime="docker", environment=docker_environment)
    label = {"label": "com.docker.compose.project=halfway"}
    with subprocess.Popen(
        [sys.executable, "-m", "devmesh.cli.app", "up", *NO_GATEWAYS],
        cwd=tmp_path, env={**docker_environment, "DEVMESH_RUNTIME": "docker"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as going:  # fmt: skip
        until(lambda: bool(docker_engine.containers.list(filters=label)), 60)
        mesh.devmesh("down")
        assert going.wait(60) != 0
    assert docker_engine.containers.list(all=True, filters=label) == []
    assert docker_engine.networks.list(filters=label) == []
    mesh.devmesh("down", "--volumes")


def test_two_projects_are_up_at_once(five, docker_environment, devmesh_image, tmp_path):
    (tmp_path / "compose.yaml").write_text("name: odd-name_2\nservices: {consul: {image: '${REDIS_IMAGE}', expose: ['6379']}}\n")
    with running(tmp_path, "auto", "docker", docker_environment, NO_GATEWAYS) as other:
        assert page(five).startswith("web: api")
        assert other.json("status")["workloads"][0]["ready"]
        assert other.state()["parts"]["consul"] == "mesh-consul", "a user's service keeps its name"
        assert not set(other.state()["ports"].values()) & set(five.state()["ports"].values())


def test_a_second_project_joins_the_first_ones_control_plane_and_calls_its_services(five, docker_engine, docker_environment, tmp_path):
    (tmp_path / "compose.yaml").write_text(
        f"name: desk{os.getpid()}\nservices: {{caller: {{image: '${{DEBIAN_IMAGE}}', command: [sleep, infinity], init: true}}}}\n"
    )
    desk = RunningMesh(tmp_path, runtime="docker", environment=docker_environment)
    address = f"values.global.remotePilotAddress={five.folder}"
    desk.devmesh("up", "--runtime", "docker", "--set", "profile=remote", "--set", address)
    try:
        assert {one["name"] for one in desk.json("status")["workloads"]} == {"caller"}
        assert {one["Config"]["Labels"]["devmesh.role"] for one in attributes(docker_engine, desk)} == {"pod", "sidecar", "app"}
        program = "import urllib.request as u; print(u.urlopen('http://web:3000/', timeout=9).read().decode())"
        assert desk.devmesh("exec", "caller", "--", "python3", "-c", program).stdout.startswith("web: api")
        until(lambda: "outbound|3000||web.default.svc.cluster.local" in desk.devmesh("logs", "caller", "--access").stdout)
        until(lambda: targets(five).get("caller") == "up")
        refused = five.devmesh("down", check=False)
        assert refused.returncode == 1
        assert f"desk{os.getpid()} has joined this mesh" in refused.stderr
    finally:
        desk.devmesh("down", "--volumes")
    assert "caller" not in five.devmesh("proxy-status").stdout
    until(lambda: "caller" not in targets(five))


def test_a_service_that_opted_out_is_an_ordinary_container(docker_engine, docker_environment, devmesh_image, tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "name: optout\nservices:\n"
        "  plain: {image: '${REDIS_IMAGE}', x-devmesh: {inject: false}}\n"
        "  caller: {image: '${DEBIAN_IMAGE}', command: [sleep, infinity], init: true, depends_on: [plain]}\n"
    )
    program = "import socket; s = socket.create_connection(('plain', 6379), timeout=5); s.sendall(b'PING\\r\\n'); print(s.recv(9))"
    with running(tmp_path, "auto", "docker", docker_environment, NO_GATEWAYS) as mesh:
        assert [one["service"] for one in mesh.json("status")["workloads"]] == ["caller"]
        assert mesh.devmesh("exec", "caller", "--", "python3", "-c", program).stdout == "b'+PONG\\r\\n'\n"
        names = {one["Config"]["Labels"]["com.docker.compose.service"] for one in attributes(docker_engine, mesh)}
        assert "plain" in names
        assert "plain-pod" not in names
