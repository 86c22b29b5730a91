import asyncio
import json
import re
import socket

import pytest

from devmesh.sidecar.config import Cluster, TcpProxy
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import TraceContext
from devmesh.sidecar.telemetry import recorder
from devmesh.sidecar.telemetry.peer import PeerLabels, decode
from devmesh.sidecar.telemetry.recorder import SLICE, Telemetry
from tests.sidecar.snapshots import cluster, listener, parsed, parsed_manager
from tests.sidecar.telemetry.collector import collector
from tests.sidecar.telemetry.records import CLUSTER, PRODUCTPAGE, inbound, outbound
from tests.support.waiting import until

LOGGED, SILENT = parsed_manager(access_log=[{"name": "file"}]), parsed_manager()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(recorder, "LOG_INTERVAL", 0.01)


def made(log_file=None, encoding="TEXT", url=None):
    return Telemetry(PRODUCTPAGE, "productpage", "spiffe://me", url, log_file, encoding)


async def test_a_record_is_counted_logged_and_becomes_a_span(tmp_path):
    log = tmp_path / "access.log"
    async with collector() as found:
        telemetry = made(log, url=found.url)
        telemetry.start()
        telemetry.record(outbound(), LOGGED)
        assert "istio_requests_total{" in telemetry.render_metrics()
        await until(lambda: log.read_text().count("\n") == 1)
        await telemetry.stop()
        assert sum(found.sizes) == 2
    assert '"GET /reviews/0?u=1 HTTP/1.1" 200' in log.read_text()
    assert "devmesh_spans_sent_total 2" in telemetry.render_metrics()


async def test_a_fault_is_counted_when_it_is_met():
    telemetry = made()
    for _ in range(2):
        telemetry.fault_met("f1")
    await telemetry.stop()
    assert 'devmesh_fault_hits_total{fault="f1"} 2\n' in telemetry.render_metrics()


async def test_the_log_belongs_to_its_owner(tmp_path):
    log = tmp_path / "access.log"
    await made(log).stop()
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_manager_without_access_log_is_not_logged(tmp_path):
    log = tmp_path / "access.log"
    telemetry = made(log)
    telemetry.record(outbound(), SILENT)
    await telemetry.stop()
    assert log.read_text() == ""


@pytest.mark.parametrize(("wanted", "lines"), [(True, 1), (False, 0)])
async def test_a_connection_is_logged_where_its_proxy_filter_has_an_access_log(tmp_path, wanted, lines):
    log = tmp_path / "access.log"
    telemetry = made(log)
    telemetry.tcp_closed(outbound(), TcpProxy("", (), 0, access_log=wanted))
    await telemetry.stop()
    assert log.read_text().count("\n") == lines
    assert "istio_tcp_connections_closed_total{" in telemetry.render_metrics()


async def test_json_is_one_object_a_line(tmp_path):
    log = tmp_path / "access.log"
    telemetry = made(log, "JSON")
    telemetry.record(outbound(), LOGGED)
    telemetry.record(inbound(status=404), LOGGED)
    await telemetry.stop()
    assert [json.loads(line)["response_code"] for line in log.read_text().splitlines()] == [200, 404]


async def test_many_lines_are_written_in_their_order_over_several_turns(tmp_path):
    log = tmp_path / "access.log"
    telemetry = made(log, "JSON")
    for number in range(3 * SLICE + 5):
        telemetry.record(outbound(status=number), LOGGED)
    await until(lambda: log.read_text().count("\n") == 3 * SLICE + 5)
    assert [json.loads(line)["response_code"] for line in log.read_text().splitlines()] == list(range(3 * SLICE + 5))
    await telemetry.stop()


async def test_a_full_buffer_of_lines_does_not_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "LOG_INTERVAL", 60.0)
    monkeypatch.setattr(recorder, "LOG_BUFFER", 1000)
    log = tmp_path / "access.log"
    telemetry = made(log, "JSON")
    telemetry.record(outbound(target=b"/" + b"x" * 1000), LOGGED)
    await until(lambda: log.read_text().count("\n") == 1)
    telemetry.record(outbound(), LOGGED)
    await telemetry.stop()
    assert log.read_text().count("\n") == 2


async def test_a_log_that_cannot_be_written_is_counted_and_nothing_else_happens(tmp_path):
    telemetry = made("/dev/full")
    telemetry.record(outbound(), LOGGED)
    telemetry.record(outbound(), LOGGED)
    await telemetry.stop()
    assert "devmesh_access_log_lines_lost_total 2" in telemetry.render_metrics()


async def test_the_log_may_go_to_stdout(capfd):
    telemetry = made(recorder.STDOUT)
    telemetry.record(outbound(), LOGGED)
    await telemetry.stop()
    assert "via_upstream" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("trace", "spans"),
    [
        (None, 0),
        (TraceContext(b"\x01" * 16, b"\x02" * 8, None, sampled=False), 0),
        (TraceContext(b"\x01" * 16, b"\x02" * 8, None, sampled=True), 1),
    ],
)
async def test_only_sampled_traces_become_spans(trace, spans):
    async with collector() as found:
        telemetry = made(url=found.url)
        telemetry.start()
        telemetry.record(inbound(trace=trace), SILENT)
        await telemetry.stop()
        assert sum(found.sizes) == spans


async def test_the_service_of_a_request_is_that_of_its_cluster():
    reviews = Cluster(CLUSTER, "EDS", "RANDOM", (), service="reviews.x", service_name="reviews", service_namespace="x")
    telemetry = made()
    telemetry.bind({CLUSTER: reviews}.get)
    telemetry.record(outbound(), SILENT)
    telemetry.tcp_opened(outbound())
    telemetry.tcp_closed(outbound(), TcpProxy("", (), 0))
    rendered = telemetry.render_metrics()
    assert rendered.count('destination_service="reviews.x"') == rendered.count("destination_service=")
    assert "istio_tcp_connections_opened_total{" in rendered
    await telemetry.stop()


async def test_a_connection_is_counted_while_it_is_open():
    left = asyncio.Event()

    async def hello(reader, writer):
        writer.write(b"hello")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    app = await asyncio.start_server(hello, "127.0.0.1", 0)
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {"stat_prefix": "s", "cluster": "c"}}]}
    telemetry = made()
    proxy = Proxy(telemetry=telemetry)
    proxy.apply(
        parsed(
            listeners=[listener(chain, traffic_direction="INBOUND")],
            clusters=[cluster("c", (app.sockets[0].getsockname(),))],
        )
    )
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await proxy.listen([SocketSpec("inbound", *sock.getsockname(), sock)])
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    assert await reader.readexactly(5) == b"hello"
    assert re.search(r"istio_tcp_connections_opened_total{.*} 1\n", telemetry.render_metrics())
    assert re.search(r"istio_tcp_connections_closed_total{.*} 0\n", telemetry.render_metrics())
    writer.close()
    await left.wait()
    await proxy.close()
    app.close()
    await until(lambda: re.search(r"istio_tcp_connections_closed_total{.*} 1\n", telemetry.render_metrics()))
    await telemetry.stop()


def test_what_peers_are_told_about_us():
    told = dict(made().peer_metadata)
    assert told[b"x-envoy-peer-metadata-id"] == PRODUCTPAGE.node_id.encode()
    assert decode(told[b"x-envoy-peer-metadata"]) == PeerLabels(
        "productpage-v1", "default", "productpage", "v1", "productpage", "Kubernetes"
    )


async def test_without_anywhere_to_go_records_are_only_counted():
    telemetry = made()
    telemetry.start()
    telemetry.record(outbound(), LOGGED)
    await telemetry.stop()
    await telemetry.stop()
    assert 'response_code="200"' in telemetry.render_metrics()
