"""Pods on machines and with apps that are not as one would wish."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devmesh.runtimes.processes import start_time
from tests.e2e.conftest import PATIENCE, ROOT, RunningMesh, copy_sample, running
from tests.support.require import missing, pods

pytestmark = pytest.mark.e2e
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


def compose(folder: Path, services: dict[str, str]) -> Path:
    """A mesh of small services: name -> port, and what its command is told more."""
    folder.mkdir()
    (folder / "server.py").write_text(SERVER)
    lines = ["name: awkward", "services:"]
    for name, port in services.items():
        lines += [
            f"  {name}:",
            f'    expose: ["{port}"]',
            f"    x-devmesh: {{protocol: http, local: {{command: [python, server.py, '{port}']}}}}",
        ]
    (folder / "compose.yaml").write_text("\n".join(lines) + "\n")
    return folder


def answered(mesh: RunningMesh, caller: str, url: str) -> str:
    return mesh.devmesh("exec", caller, "curl", "-s", "-m", "10", url).stdout


class Unprivileged(RunningMesh):
    """The same command line as the user nobody, by an interpreter that nobody may run."""

    def devmesh(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        site = next(path for path in sys.path if path.endswith("site-packages"))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["HOME"] = str(self.folder)
        program = "import sys; from devmesh.cli.app import main; main()"
        done = subprocess.run(
            [*NOBODY, interpreter(), "-c", program, *arguments],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=180, input=stdin,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def interpreter() -> str:
    """A Python of our version that the user nobody may run."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        # through a shell: setpriv itself still has root's ways to read
        if subprocess.run([*NOBODY, "sh", "-c", f"{candidate} -c ''"], capture_output=True, check=False).returncode == 0:
            return candidate
    missing("nobody", "no interpreter that the user nobody may run")
    raise AssertionError


@pytest.fixture
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that nobody may reach: pytest's own are closed."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def up(mesh: RunningMesh) -> Iterator[RunningMesh]:
    mesh.up()
    try:
        yield mesh
    finally:
        mesh.devmesh("down")


# In one shell, since each command into a pod costs more than all of these.
REGISTRY_ONLY = """
curl -s -o /dev/null -w '%{http_code} ' http://203.0.113.7:9080/
curl -sk https://203.0.113.7:9080/; echo -n "$? "
curl -s telnet://203.0.113.7:8123 </dev/null && curl -s http://203.0.113.7:8123/ || echo -n "cut "
curl -s http://web/; echo -n " "
curl -s -6 -H 'Host: web' "http://[::ffff:$(getent ahostsv4 web | cut -d ' ' -f 1 | head -n 1)]/"; echo -n " "
curl -s -6 -m 10 http://web/; test $? != 28 && echo -n "no IPv6 address"
"""


def test_without_root_the_whole_mesh_runs_a_port_below_1024_is_the_apps_and_only_the_registry_is_reached(open_folder):
    if os.getuid() != 0:
        pytest.skip("becoming nobody takes root")
    pods()
    folder = compose(open_folder / "mesh", {"web": "80", "other": "9080"})
    subprocess.run(["chown", "-R", "nobody", str(folder)], check=True)
    settings = ("--set", "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY")
    with up(Unprivileged(folder, interception="namespace", settings=settings)) as mesh:
        assert answered(mesh, "web", "http://other:9080/") == "ok"
        said = mesh.devmesh("exec", "other", "sh", "-c", REGISTRY_ONLY).stdout
        assert said == "502 35 cut ok ok no IPv6 address", (
            "as Istio refuses HTTP, TLS and TCP; IPv6 sockets reach a service by its IPv4 address"
        )
        state = mesh.state()
        uids = {Path(f"/proc/{one['pid']}").stat().st_uid for one in state["processes"]}
        assert uids == {folder.stat().st_uid}, "everything is the user's own"
    assert [one["name"] for one in state["processes"] if start_time(one["pid"]) == one["started"]] == []


def test_where_namespaces_are_refused_up_falls_back_and_says_what_would_allow_them(tmp_path):
    pods()
    mesh = RunningMesh(copy_sample("bookinfo", tmp_path / "refused"))
    limited = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'

    def devmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
        inside = ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", str(Path(sys.executable).with_name("devmesh"))]
        return subprocess.run([*inside, *arguments], cwd=mesh.folder, capture_output=True, text=True, check=False, timeout=180)

    forced = devmesh("up", *PATIENCE["up"], "--runtime", "local", "--interception", "namespace")
    assert forced.returncode == 1
    assert "no user namespaces are allowed (unshare: No space left on device)" in forced.stderr
    assert "hint: sudo sysctl -w user.max_user_namespaces=15000" in forced.stderr
    assert not (mesh.folder / ".devmesh" / "state.json").exists()
    done = devmesh("up", *PATIENCE["up"], "--runtime", "local")
    try:
        assert done.returncode == 0, done.stderr
        assert "interception proxy: no user namespaces are allowed" in done.stderr
        mesh.gateway = mesh.state()["gateway_url"]
        assert "PublisherA" in mesh.page()
        assert {one["interception"] for one in mesh.json("status")["workloads"]} == {"proxy"}
    finally:
        devmesh("down")


def test_without_iptables_pods_are_refused_with_the_name_of_its_package(tmp_path):
    folder = copy_sample("bookinfo", tmp_path / "bare")
    script = (
        "import devmesh.pods.preflight as p; p.TOOLS = {'nowhere-restore': 'iptables'}; "
        "import json, socket, sys; from pathlib import Path; from devmesh.runtimes.files import MeshFiles; from devmesh.runtimes.local.life import live; "
        'compose = Path(sys.argv[1]); MeshFiles.of(compose).make(); ours, theirs = socket.socketpair(); ours.sendall(b\'{"interception": "namespace"}\\n\'); '
        "channels = [socket.socketpair()[0] for _ in range(2)]; "
        "status = live(compose, theirs, [(2**22, one) for one in channels], 0.0); "
        "print(ours.makefile().read()); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "compose.yaml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pods need nowhere-restore" in done.stdout
    assert "sudo apt-get install iptables" in done.stdout


def test_thirty_pods_come_up_at_once_and_call_each_other(tmp_path):
    pods()
    folder = compose(tmp_path / "many", {f"s{number}": "9080" for number in range(30)})
    with running(folder, "namespace") as mesh:
        workloads = mesh.json("status")["workloads"]
        assert sum(one["ready"] and one["synced"] for one in workloads if not one["gateway"]) == 30
        assert answered(mesh, "s0", "http://s29:9080/") == "ok"
        pids = [(one["pid"], one["started"]) for one in mesh.state()["processes"]]
    assert [pid for pid, started in pids if start_time(pid) == started] == []


@pytest.mark.parametrize(
    ("change", "ipv6"),
    [
        ("echo 'nameserver 127.0.0.53' > etc/resolv.conf", True),
        ("rm etc/resolv.conf", False),
        ("ln -sf /run/nowhere/resolv.conf etc/resolv.conf", True),
    ],
    ids=["a name server on loopback", "no resolv.conf and IPv6 disabled", "a link to nothing"],
)
def test_whatever_resolv_conf_is_mesh_names_resolve_and_others_fail_at_once(tmp_path, change, ipv6):
    """On a machine of its own /etc, or of its own network too: namespaces around the whole mesh."""
    pods()
    if os.getuid() != 0:
        pytest.skip("an /etc of one's own takes root")
    folder = compose(tmp_path / "mesh", {"web": "9080", "other": "9080"})
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True, ignore_dangling_symlinks=True)
    subprocess.run(["sh", "-c", change], cwd=tmp_path, check=True)
    devmesh = str(Path(sys.executable).with_name("devmesh"))
    without_ipv6 = "ip link set lo up; echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6 >/dev/null"
    script = f"""
set -e
{"" if ipv6 else without_ipv6}
mount --bind {tmp_path}/etc /etc
cd {folder}
{devmesh} up {" ".join(PATIENCE["up"])} --runtime local --interception namespace >&2
trap '{devmesh} down >&2' EXIT
{devmesh} exec other curl -s http://web:9080/
{devmesh} exec other curl -s http://web.default.svc.cluster.local:9080/
{devmesh} exec other timeout 20 getent hosts nowhere.example || echo " $?"
"""
    around = ["unshare", "--mount", *([] if ipv6 else ["--net"]), "sh", "-c", script]
    done = subprocess.run(around, capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "okok 2\n", done.stderr


@contextmanager
def coming_up(folder: Path, *change: str) -> Iterator[subprocess.Popen[str]]:
    """`up` of one service whose program is changed so, until its mesh is taken down."""
    pods()
    compose(folder, {"web": "9080"})
    (folder / "server.py").write_text(SERVER.replace(*change))
    command = [sys.executable, "-m", "devmesh.cli.app", "up", *PATIENCE["up"], "--runtime", "local", "--interception", "namespace"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as going:
        try:
            yield going
        finally:
            RunningMesh(folder).devmesh("down")


def test_an_app_on_loopback_alone_is_named_while_up_waits_since_its_sidecar_cannot_reach_it(tmp_path):
    with coming_up(tmp_path / "mesh", '("",', '("127.0.0.1",') as going:
        said = next((line for line in going.stderr if "web listens on" in line), "")
        assert "web listens on 127.0.0.1:9080 only" in said
        assert "have it listen on 0.0.0.0" in said
    assert going.returncode == 1, "`down` ends it"
    assert not (tmp_path / "mesh" / ".devmesh" / "state.json").exists()


def test_an_app_that_wants_15001_is_named_with_its_own_words(tmp_path):
    with coming_up(tmp_path / "mesh", "int(sys.argv[1])", "15001") as going:
        said = going.stderr.read()
        assert going.wait() == 1
        assert "web exits at start" in said
        assert "Address already in use" in said
