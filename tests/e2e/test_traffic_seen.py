"""What `status` says of ports and workloads that only their traffic tells."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import RunningMesh, running, until, virtual_service

pytestmark = pytest.mark.e2e
COMPOSE = """\
name: seen
services:
  framed:
    expose: ["7000"]
    x-devmesh: {local: {command: [python, framed.py]}}
"""
# Answers HTTP/2's preface with an empty SETTINGS frame, which is all that a client must see to know whom it speaks with.
APP = """\
import os, socketserver
class Framed(socketserver.BaseRequestHandler):
    def handle(self):
        if self.request.recv(1024).startswith(b"PRI * HTTP/2.0"):
            self.request.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        self.request.recv(1024)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(os.environ["PORT"])), Framed).serve_forever()
"""
RULE = virtual_service("framed", "fault: {abort: {httpStatus: 503, percentage: {value: 100}}}")


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[RunningMesh]:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "framed.py").write_text(APP)
    with running(tmp_path, "proxy") as mesh:
        yield mesh


def framed(mesh: RunningMesh) -> dict:
    return next(one for one in mesh.json("status")["workloads"] if one["service"] == "framed")


def test_a_port_that_turns_out_to_speak_h2_is_shown_so_and_an_http_rule_for_it_is_a_diagnostic(mesh):
    assert framed(mesh)["ports"] == [{"port": 7000, "protocol": "auto", "source": "sniffed"}]
    assert "DM0008" not in mesh.devmesh("apply", "-f", "-", stdin=RULE).stderr
    mesh.devmesh("delete", "virtualservice", "framed")
    url = mesh.json("status")["urls"]["services"]["framed"]
    subprocess.run(["curl", "-s", "-m", "20", "--http2-prior-knowledge", url], capture_output=True, check=False)  # until the app hangs up
    until(lambda: framed(mesh)["ports"] == [{"port": 7000, "protocol": "tcp (h2)", "source": "traffic"}])
    assert "7000 tcp (h2)" in mesh.devmesh("status").stdout
    said = mesh.devmesh("apply", "-f", "-", stdin=RULE).stderr
    assert "-:6:3: warning [DM0008]" in said
    assert (
        "HTTP rules never apply to framed.default.svc.cluster.local: port 7000 is HTTP/2, carried as plain TCP for now (by its traffic)"
        in said
    )


def test_a_workload_that_has_called_nobody_through_its_sidecar_is_named(mesh):
    said = mesh.devmesh("status").stderr
    assert "no outbound request seen yet from:\n  framed\n" in said
    assert "HTTP_PROXY" in said


def test_a_workload_that_calls_is_not_named(bookinfo):
    bookinfo.page()
    until(lambda: "productpage-v1" not in bookinfo.devmesh("status").stderr.partition("no outbound request seen yet from")[2])
