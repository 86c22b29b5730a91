"""Bytes both ways: half-closes, back-pressure, endings, mTLS."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from devmesh.sidecar.record import Flag
from devmesh.sidecar.seam import reset
from tests.sidecar import snapshots
from tests.sidecar.identities import Identity, authority, credentials, downstream_tls, upstream_tls
from tests.sidecar.sidecars import app, refusing_port, sidecar
from tests.support.virtual_time import in_virtual_time, now, pass_time
from tests.support.waiting import until


def tcp(*ports: int, cluster=None, socket=None, **config):
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {"stat_prefix": "t", "cluster": "c", **config}}]}
    if socket:
        chain |= {"transport_socket": socket, "filter_chain_match": {"transport_protocol": "tls"}}
    endpoints = tuple(("127.0.0.1", port) for port in ports)
    return {
        "listeners": [snapshots.listener(chain, traffic_direction="INBOUND")],
        "clusters": [snapshots.cluster("c", endpoints, **(cluster or {}))],
    }


async def echo(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    await writer.drain()


async def test_bytes_pass_both_ways_and_a_half_close_is_kept():
    async with app(echo) as ours, sidecar(tcp(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"\x00\xffhello")
        assert await client.reader.readexactly(7) == b"\x00\xffhello"
        client.writer.write_eof()
        assert await client.rest() == b"bye"
        record = await proxy.records.next()
        assert (record.protocol, record.bytes_received, record.bytes_sent, record.flags) == (b"TCP", 7, 10, Flag.NONE)
        assert (record.upstream_cluster, record.upstream_host) == ("c", f"127.0.0.1:{ours.port}")


async def test_a_server_that_speaks_first_is_heard():
    async def greeting(_, writer):
        writer.write(b"hello")
        await writer.drain()

    async with app(greeting) as ours, sidecar(tcp(ours.port)) as proxy:
        assert await (await proxy.connect()).rest() == b"hello"


async def test_bytes_and_a_half_close_before_the_upstream_is_there_are_not_lost():
    async with app(echo) as ours, sidecar(tcp(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"early")
        client.writer.write_eof()
        assert await client.rest() == b"earlybye"


async def test_five_megabytes_pass_whole():
    data = bytes(range(256)) * 20_000
    async with app(echo) as ours, sidecar(tcp(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(data)
        client.writer.write_eof()
        assert await client.rest() == data + b"bye"


async def test_a_client_that_leaves_ends_the_upstream():
    gone = asyncio.Event()

    async def handler(reader, _):
        try:
            await reader.read()
        finally:
            gone.set()

    async with app(handler) as ours, sidecar(tcp(ours.port)) as proxy:
        client = await proxy.connect()
        await until(lambda: ours.connections == 1)
        client.leave()
        await asyncio.wait_for(gone.wait(), 60)
        await proxy.records.next()


async def test_a_client_that_leaves_while_the_upstream_is_connected_to_leaves_nothing_open():
    gone = asyncio.Event()

    async def handler(reader, _):
        await reader.read()
        gone.set()

    async with app(handler) as ours, sidecar(tcp(ours.port)) as proxy:
        client = await proxy.connect()
        client.leave()
        await proxy.records.next()
        if ours.connections:
            await asyncio.wait_for(gone.wait(), 60)


async def test_what_cannot_be_reached_closes_the_client_and_says_why():
    sock, port = refusing_port()
    unknown = {"listeners": tcp()["listeners"], "clusters": []}
    with sock:
        for snapshot, flag in ((tcp(port), Flag.UF | Flag.URX), (tcp(), Flag.UH), (unknown, Flag.NC)):
            async with sidecar(snapshot) as proxy:
                assert await (await proxy.connect()).closed()
                assert (await proxy.records.next()).flags == flag


async def test_what_the_registry_does_not_have_is_named_as_envoy_names_it():
    snapshot = tcp()
    snapshot["clusters"] = [snapshots.cluster("BlackHoleCluster")]
    snapshot["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["cluster"] = "BlackHoleCluster"
    async with sidecar(snapshot) as proxy:
        assert await (await proxy.connect()).closed()
        record = await proxy.records.next()
        # Asked of Envoy 1.40: %RESPONSE_FLAGS% UH, %UPSTREAM_CLUSTER% BlackHoleCluster.
        assert (record.flags, record.upstream_cluster) == (Flag.UH, "BlackHoleCluster")


async def test_weights_spread_connections():
    weights = {"cluster": None, "weighted_clusters": {"clusters": [{"name": "c", "weight": 0}, {"name": "d", "weight": 1}]}}
    async with app(echo) as ours:
        snapshot = tcp(1, **weights)
        snapshot["clusters"].append(snapshots.cluster("d", (("127.0.0.1", ours.port),)))
        snapshot["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"].pop("cluster")
        async with sidecar(snapshot) as proxy:
            client = await proxy.connect()
            client.writer.write_eof()
            assert await client.rest() == b"bye"


async def test_bytes_and_half_closes_pass_through_mtls(tmp_path):
    ca = authority(tmp_path)
    data = bytes(range(256)) * 8_000
    async with (
        app(echo) as ours,
        sidecar(tcp(ours.port, socket=downstream_tls()), identity=Identity(credentials(ca, "server"))) as server,
        sidecar(
            tcp(server.port, cluster={"transport_socket": upstream_tls("server")}), identity=Identity(credentials(ca, "client"))
        ) as caller,
    ):
        client = await caller.connect()
        client.send(data)
        client.writer.write_eof()
        assert await client.rest() == data + b"bye"
        assert (await caller.records.next()).flags == Flag.NONE


@in_virtual_time
async def test_an_idle_connection_is_closed():
    async with app(echo) as ours, sidecar(tcp(ours.port, idle_timeout="0.1s")) as proxy:
        client = await proxy.connect()
        client.send(b"a")
        assert await client.rest() == b"a"


@in_virtual_time
async def test_a_connection_that_has_lasted_its_time_is_closed_and_flagged_as_in_envoy():
    async with app(echo) as ours, sidecar(tcp(ours.port, max_downstream_connection_duration="3s")) as proxy:
        client = await proxy.connect()
        for _ in range(4):  # it is not idle
            client.send(b"a")
            assert await client.reader.readexactly(1) == b"a"
            await pass_time(0.7)
        assert await client.rest() == b""
        assert now() < 3.1
        assert (await proxy.records.next()).flags == Flag.DT


@in_virtual_time
async def test_what_nobody_reads_does_not_keep_an_idle_connection():
    async def flood(reader, writer):
        writer.write(bytes(20_000_000))
        await reader.read()

    async with app(flood) as ours, sidecar(tcp(ours.port, idle_timeout="2s")) as proxy:
        client = await proxy.connect()
        client.writer.transport.pause_reading()
        await pass_time(3)
        assert not proxy.proxy.connections
        assert (await proxy.records.next()).bytes_sent < 20_000_000


@pytest.mark.parametrize("policy", ["RING_HASH", "MAGLEV"])
async def test_connections_from_one_address_meet_one_endpoint_when_the_source_is_hashed(policy):
    async with app(echo) as one, app(echo) as other:
        hashed = tcp(one.port, other.port, cluster={"lb_policy": policy}, hash_policy=[{"source_ip": {}}])
        async with sidecar(hashed) as proxy:
            for _ in range(8):
                client = await proxy.connect()
                client.writer.write_eof()
                assert await client.rest() == b"bye"
        assert {one.connections, other.connections} == {0, 8}


def cut(writer) -> None:
    """What a process does that dies with a connection in its hands, or wants to say that something went wrong."""
    reset(writer.transport)


@pytest.mark.parametrize("mtls", [False, True], ids=["plain", "mTLS"])
async def test_a_reset_of_either_side_is_a_reset_for_the_other_as_in_envoy(tmp_path, mtls):
    """Asked of Envoy 1.40, plain and with TLS between two of its listeners: neither side sees an end that looks whole."""
    ca = authority(tmp_path)
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def handler(reader, writer):
        if await reader.readexactly(1) == b"R":
            writer.write(b"some")
            await writer.drain()
            await reader.readexactly(1)
            cut(writer)
            return
        try:
            await reader.read()
            heard.put_nowait("whole")
        except ConnectionResetError:
            heard.put_nowait("reset")

    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(app(handler))
        port = ours.port
        if mtls:
            inbound = sidecar(tcp(port, socket=downstream_tls()), identity=Identity(credentials(ca, "server")))
            port = (await stack.enter_async_context(inbound)).port
        cluster = {"transport_socket": upstream_tls("server")} if mtls else {}
        proxy = await stack.enter_async_context(sidecar(tcp(port, cluster=cluster), identity=Identity(credentials(ca, "client"))))
        client = await proxy.connect()
        client.send(b"R")
        assert await client.reader.readexactly(4) == b"some"
        client.send(b".")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.read(), 60)
        other = await proxy.connect()
        other.send(b"W")
        await until(lambda: ours.connections == 2)
        cut(other.writer)
        assert await asyncio.wait_for(heard.get(), 60) == "reset"
