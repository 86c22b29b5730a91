"""The whole data plane: what it listens on, how its configuration is replaced, how it ends."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import Direction, Record
from tests.sidecar import snapshots
from tests.sidecar.identities import Identity, authority, credentials, downstream_tls, spiffe, upstream_tls
from tests.sidecar.sidecars import OK, Records, answering, app, free_socket, one_route, port_of, read_head, sidecar
from tests.support.waiting import until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INSPECTORS = [{"name": "envoy.filters.listener.tls_inspector"}, {"name": "envoy.filters.listener.http_inspector"}]


def inbound(port: int, chain):
    """A sidecar whose every workload port is the app's."""
    table = snapshots.table(snapshots.host(snapshots.route(route={"cluster": "inbound|80||", "timeout": "0s"})))
    listener = snapshots.listener({**snapshots.http_chain(route_config=table), **chain}, listener_filters=INSPECTORS, name="virtualInbound")
    return {"listeners": [listener], "clusters": [{"name": "inbound|80||", "type": "ORIGINAL_DST"}]}


async def greeting(reader, writer):
    """Speaks HTTP/2's first words and nothing else of it."""
    assert await reader.readexactly(len(PREFACE)) == PREFACE
    writer.write(b"settings")
    while data := await reader.read(100):
        writer.write(data)


async def test_h2_on_an_http_chain_is_carried_as_bytes_and_counted():
    async with app(greeting) as ours:
        dial = {"10.0.0.1:80": ("127.0.0.1", ours.port)}
        async with sidecar(inbound(ours.port, {}), original=("10.0.0.1", 80), dial=dial) as proxy:
            client = await proxy.connect()
            client.send(PREFACE[:10])
            client.send(PREFACE[10:] + b"frames")
            assert await client.reader.readexactly(14) == b"settingsframes"
            assert proxy.proxy.h2_ports == {80}
            client.leave()
            record = await proxy.records.next()
            assert (record.protocol, record.upstream_cluster) == (b"TCP", "inbound|80||")


@pytest.mark.parametrize("alpn", ["istio", "h2"])
async def test_h2_from_a_callers_sidecar_is_carried_as_bytes_through_mtls(tmp_path, alpn):
    """The caller carries it as TCP, whose ALPN does not name it: the called one sees it inside."""
    ca = authority(tmp_path)
    chain = {"transport_socket": downstream_tls("spiffe://", "h2", "http/1.1"), "filter_chain_match": {"transport_protocol": "tls"}}
    passing = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {"stat_prefix": "t", "cluster": "c"}}]}
    async with app(greeting) as ours:
        dial = {"10.0.0.1:80": ("127.0.0.1", ours.port)}
        identity = Identity(credentials(ca, "server"))
        async with sidecar(inbound(ours.port, chain), original=("10.0.0.1", 80), dial=dial, identity=identity) as server:
            snapshot = {
                "listeners": [snapshots.listener(passing, traffic_direction="INBOUND")],
                "clusters": [snapshots.cluster("c", (("127.0.0.1", server.port),), transport_socket=upstream_tls("server", alpn))],
            }
            async with sidecar(snapshot, identity=Identity(credentials(ca, "client"))) as caller:
                client = await caller.connect()
                client.send(PREFACE[:2])
                client.send(PREFACE[2:] + b"frames")
                assert await client.reader.readexactly(14) == b"settingsframes"
                assert server.proxy.h2_ports == {80}
                client.leave()
                assert (await server.records.next()).peer_principal == spiffe("client")


async def test_a_published_socket_stands_for_the_workloads_own_address():
    async with app(answering()) as ours:
        dial = {"10.0.0.1:80": ("127.0.0.1", ours.port)}
        async with sidecar(inbound(ours.port, {}), role="published", original=("10.0.0.1", 80), dial=dial) as proxy:
            assert (await proxy.ask()).body == b"ok"
            record = await proxy.records.next()
            assert (record.direction, record.upstream_host, record.downstream_local) == (Direction.INBOUND, "10.0.0.1:80", "10.0.0.1:80")


async def test_a_gateway_is_the_client_of_what_it_routes_to():
    async with app(answering()) as ours:
        sock = free_socket()
        port = port_of(sock)
        snapshot = one_route(ours.port)
        snapshot["listeners"][0]["name"] = f"0.0.0.0_{port}"
        telemetry = Records()
        proxy = Proxy(gateway=True, telemetry=telemetry)
        proxy.apply(snapshots.parsed(**snapshot))
        await proxy.listen([SocketSpec("inbound", "127.0.0.1", port, sock)])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await reader.readuntil(b"ok")
        assert (await telemetry.next()).direction is Direction.OUTBOUND
        writer.close()
        await proxy.close()


async def test_a_replaced_configuration_closes_idle_connections_to_what_is_gone_and_keeps_the_others():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        await client.ask()
        proxy.proxy.apply(snapshots.parsed(**one_route(ours.port)))
        await client.ask()
        assert ours.connections == 1
        proxy.proxy.apply(snapshots.parsed(listeners=one_route(1)["listeners"]))
        await until(lambda: not proxy.proxy.upstreams.load("c").connections)
        assert (await client.ask()).status == 503


async def test_stats_count_by_direction_and_class():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        for _ in range(3):
            await client.ask()
        client.send(b"GARBAGE\r\n\r\n")
        await client.answer()
        stats = proxy.proxy.stats()
        assert (stats["http.inbound.rq_total"], stats["http.inbound.rq_2xx"], stats["http.inbound.rq_4xx"]) == (4, 3, 1)


async def test_draining_ends_what_does_not_end_by_itself_after_its_time():
    async def silent(reader, _):
        await read_head(reader)
        await reader.read()

    async with app(silent) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.get()
        await until(lambda: ours.connections == 1)
        started = proxy.proxy.now()
        await proxy.proxy.drain(0.2)
        assert 0.2 <= proxy.proxy.now() - started < 2
        assert await client.closed()


async def test_an_answer_in_flight_survives_a_drain_with_its_body():
    go = asyncio.Event()

    async def handler(reader, writer):
        await read_head(reader)
        writer.write(OK[:-1])
        await go.wait()
        writer.write(OK[-1:])
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.get()
        await client.reader.readuntil(b"o")
        draining = asyncio.ensure_future(proxy.proxy.drain(5))
        await until(lambda: proxy.proxy.draining)
        go.set()
        await draining
        assert (await client.rest()).endswith(b"k")


@pytest.mark.parametrize(("role", "open_meanwhile"), [("inbound", False), ("outbound", True)])
async def test_while_draining_an_app_may_still_call_out_and_nobody_calls_in(role, open_meanwhile):
    async def silent(reader, _):
        await reader.read()

    async with app(silent) as ours, sidecar(one_route(ours.port)) as proxy:
        other = free_socket()
        port = port_of(other)
        await proxy.proxy.listen([SocketSpec(role, "127.0.0.1", port, other)])
        client = await proxy.connect()
        client.get()
        await until(lambda: ours.connections == 1)
        draining = asyncio.ensure_future(proxy.proxy.drain(5))
        await until(lambda: proxy.proxy.draining)
        with socket.socket() as late:
            refused = late.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        client.leave()
        await draining
        assert refused is not open_meanwhile


async def test_the_first_h2_on_a_port_and_the_first_call_out_are_noticed_once():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        told = []
        proxy.proxy.noticed = lambda: told.append((sorted(proxy.proxy.h2_ports), proxy.proxy.calls_out))
        proxy.proxy.saw_h2(80)
        proxy.proxy.saw_h2(80)
        assert (await proxy.ask()).status == 200, "from outside, so no call of the app's"
        for _ in range(2):
            proxy.proxy.tcp_opened(Record(Direction.OUTBOUND, 1))
        assert told == [([80], False), ([80], True)]
