import json

import pytest

from tests.sidecar.life import CLUSTER, living, snapshot_file


@pytest.fixture
async def ports(tmp_path):
    async with living(xds=None, ca=None, snapshot=snapshot_file(tmp_path)) as ports:
        yield ports


async def test_reads_answer_as_envoys_do(ports):
    assert await ports.call("admin", "/ready") == (200, "LIVE\n")
    assert "server.live: 1\n" in (await ports.call("admin", "/stats"))[1]
    assert {"name": "server.live", "value": 1} in (await ports.json("/stats?format=json"))["stats"]
    assert await ports.call("admin", "/listeners") == (200, "")
    assert await ports.json("/listeners?format=json") == {"listener_statuses": []}
    assert await ports.json("/certs") == {"certificates": []}


async def test_clusters_show_endpoints_and_their_health(ports):
    text = (await ports.call("admin", "/clusters"))[1]
    assert f"{CLUSTER['name']}::127.7.0.4:9080::health_flags::healthy\n" in text
    (status,) = (await ports.json("/clusters?format=json"))["cluster_statuses"]
    (host,) = status["host_statuses"]
    assert status["name"] == CLUSTER["name"]
    assert host["address"] == {"socket_address": {"address": "127.7.0.4", "port_value": 9080}}
    assert host["health_status"] == {"eds_health_status": "HEALTHY"}


@pytest.mark.parametrize("role", ["admin", "prometheus"])
async def test_prometheus_text_has_istios_and_our_own_metrics(ports, role):
    status, text = await ports.call(role, "/stats/prometheus")
    assert status == 200
    assert "# TYPE istio_requests_total counter\n" in text
    assert "devmesh_server_live 1\n" in text


@pytest.mark.parametrize("path", ["/quitquitquit", "/drain_listeners", "/logging"])
async def test_writes_need_the_token(ports, path):
    assert (await ports.call("admin", path, "POST"))[0] == 401
    assert (await ports.call("admin", path, "POST", Authorization="Bearer wrong"))[0] == 401
    assert (await ports.call("admin", "/ready"))[0] == 200


@pytest.mark.parametrize("role", ["admin", "health", "prometheus"])
async def test_a_foreign_host_or_origin_is_refused_everywhere(ports, role):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert (await ports.call(role, "/", **headers))[0] == 403


async def test_logging_changes_the_level_and_names_a_wrong_one(ports):
    token = {"Authorization": "Bearer admin-token"}
    try:
        assert "devmesh: debug" in (await ports.call("admin", "/logging?level=debug", "POST", **token))[1]
        assert (await ports.call("admin", "/logging?level=loud", "POST", **token))[0] == 400
    finally:
        await ports.call("admin", "/logging?level=warning", "POST", **token)


async def test_draining_ends_readiness_but_not_the_process(ports):
    assert await ports.call("admin", "/drain_listeners", "POST", Authorization="Bearer admin-token") == (200, "OK\n")
    assert (await ports.call("health", "/healthz/ready"))[0] == 503
    assert json.loads((await ports.call("admin", "/server_info"))[1])["state"] == "DRAINING"
