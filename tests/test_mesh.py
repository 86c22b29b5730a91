"""Mesh.status: what is wrong with the registry and what is wrong with a certificate are two things, and neither hides the other."""

import json
import socket

import pytest

from devmesh.errors import DevmeshError
from devmesh.mesh import Mesh

WEB = {"service": "web", "version": "v1", "namespace": "default", "gateway": False, "spiffe_id": "spiffe://x/web", "url": None}


class Runtime:
    name = "local"

    def __init__(self, state, ends):
        self._state, self._ends = state, ends

    def is_up(self):
        return True

    async def state(self):
        return self._state

    async def ask_sidecar(self, workload, listener, path):
        if path == "/certs":
            return json.dumps({"certificates": [{"cert_chain": [{"expiration_time": self._ends}]}]})
        return json.dumps({"ca": {"error": "the CA does not answer"}})


@pytest.mark.parametrize(
    ("app", "healthy", "shown"),
    [
        ({"ready": True, "status": None}, True, (True, False)),
        ({"ready": False, "status": 0, "state": "exited"}, True, (True, True)),
        ({"ready": False, "status": 0, "state": "exited"}, False, (False, False)),
        ({"ready": False, "status": 1, "state": "exited"}, True, (False, False)),
        ({"ready": False, "status": 0}, True, (False, False)),
    ],
    ids=["runs", "job done", "server stopped", "job failed", "starts again"],
)
def test_a_job_that_has_ended_well_is_done_and_all_else_that_has_ended_is_not_ready(tmp_path, app, healthy, shown):
    processes = {"web-v1": {"restarts": 0} | app, "web-v1-sidecar": {"ready": True, "restarts": 0}}
    workload = Mesh(tmp_path / "compose.yaml")._workload("web-v1", WEB, processes, {"healthy": healthy})
    assert (workload["ready"], workload["done"]) == shown


@pytest.mark.parametrize(("ends", "why"), [("2999-01-01T00:00:00.000Z", ""), ("2020-01-01T00:00:00.000Z", "the CA does not answer")])
async def test_a_registry_that_is_away_is_told_whatever_the_certificates_are(tmp_path, monkeypatch, ends, why):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        state = {"ports": dict.fromkeys(("registry", "control", "query"), port), "processes": [], "workloads": {"web-v1": WEB}}
        mesh = Mesh(tmp_path / "compose.yaml")
        mesh.files.root.mkdir(mode=0o700)
        mesh.files.write_state(state)
        monkeypatch.setattr(Mesh, "runtime", Runtime(state, ends))
        status = await mesh.status()
    assert "hint:" in status["problem"]
    assert status["workloads"][0]["certificate"] == {"spiffe_id": "spiffe://x/web", "expires": ends, "problem": why}


@pytest.mark.parametrize(
    ("endpoints", "synced", "lacks"),
    [
        (["web-v1"], True, []),
        ([], True, ["web-v1: its callers are not told of it yet"]),
        (["web-v1"], False, ["web-v1: its sidecar has not acknowledged its newest configuration"]),
    ],
)
async def test_an_app_that_takes_connections_is_waited_for_until_its_callers_know_it(tmp_path, monkeypatch, endpoints, synced, lacks):
    mesh = Mesh(tmp_path / "compose.yaml")
    process = {"name": "web-v1", "ready": True, "status": None, "restarts": 0}
    monkeypatch.setattr(Mesh, "runtime", Runtime({"processes": [process], "workloads": {"web-v1": WEB}}, ""))
    proxy = {"workload": "web-v1", "healthy": True, "synced": synced, "connected": True}
    asked = []

    async def control(_mesh, path):
        asked.append(path)
        return {"/v1/status": {"endpoints": endpoints}, "/v1/proxies": {"proxies": [proxy]}}[path]

    monkeypatch.setattr(Mesh, "control", control)
    assert [str(one) for one in await mesh._apps_lack()] == lacks
    assert asked == ["/v1/status", "/v1/proxies"], "who has acknowledged everything afterwards has these endpoints"


COUNTED = 'devmesh_fault_hits_total{fault="f1"} 3\ndevmesh_fault_hits_total{fault="f2"} 1\nistio_requests_total{} 9\n'


@pytest.mark.parametrize(
    ("spec", "counted", "hits", "silent"),
    [
        ({"target": "web"}, {"web-v1": COUNTED, "api-v1": ""}, 3, []),
        ({"target": "web"}, {"web-v1": "", "api-v1": ""}, 0, []),
        ({"target": "web"}, {"web-v1": None, "api-v1": COUNTED}, None, ["web-v1"]),
        ({"target": "web"}, {"web-v1": COUNTED, "api-v1": None}, 3, []),
        ({"target": "web-v1", "partition": "api"}, {"web-v1": COUNTED, "api-v1": None}, None, ["api-v1"]),
        ({"target": "web", "kill": True, "hits": 1}, {"web-v1": None, "api-v1": None}, 1, []),
        ({"target": "web", "pause": True}, {"web-v1": None, "api-v1": None}, 1, []),
    ],
    ids=["counted", "none", "unknown", "who is silent has no part", "a partition's other side", "a kill", "a pause"],
)
async def test_what_a_silent_sidecar_has_counted_is_unknown_and_not_none(tmp_path, monkeypatch, spec, counted, hits, silent):
    class Counting(Runtime):
        async def ask_sidecar(self, workload, listener, path):
            if counted[workload] is None:
                raise DevmeshError("no answer", "devmesh status")
            return counted[workload]

    state = {"processes": [{"name": "web-v1", "held": "f1"}], "workloads": {"web-v1": WEB, "api-v1": WEB | {"service": "api"}}}
    mesh = Mesh(tmp_path / "compose.yaml")
    mesh.files.root.mkdir(mode=0o700)
    mesh.files.write_state(state)
    monkeypatch.setattr(Mesh, "runtime", Counting(state, ""))
    fault = mesh._fault("f1", spec, await mesh._fault_hits(), state)
    assert (fault["hits"], fault["silent"]) == (hits, silent)
