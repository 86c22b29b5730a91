"""Silence between two sidecars: what waits, for how long, what is told, and that all of it passes when it heals."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from devmesh.sidecar.partition import FEW, FULL
from devmesh.sidecar.record import Flag
from tests.sidecar import snapshots
from tests.sidecar.identities import Identity, authority, credentials, downstream_tls, upstream_tls
from tests.sidecar.sidecars import OK, answering, app, one_route, sidecar
from tests.sidecar.test_tcp import echo, tcp
from tests.support.scripted import Scripted
from tests.support.virtual_time import in_virtual_time, now, pass_time, settled
from tests.support.waiting import until

PORT = 1001
CUT = {"127.0.0.1": "f1"}


def cut(proxy: Any, addresses: dict[str, str]) -> None:
    """As the configuration that says so does it."""
    proxy.apply(dataclasses.replace(proxy.config, partitions=addresses))


@contextlib.asynccontextmanager
async def scripted(*, cluster: dict[str, Any] | None = None, **action: Any) -> AsyncIterator[Scripted]:
    world = Scripted(one_route(PORT, cluster=cluster, action=action))
    try:
        yield world
    finally:
        await world.close()


@in_virtual_time
async def test_a_connect_is_not_answered_and_ends_by_the_connect_timeout_as_envoy_says_it():
    async with scripted(cluster={"connect_timeout": "3s"}) as world:
        cut(world.proxy, CUT)
        client = await world.get()
        assert world.told.met == ["f1"], "it is counted when it meets the silence, not when it ends"
        await pass_time(2.9)
        assert client.written == b""
        await pass_time(0.2)
        assert client.written.startswith(b"HTTP/1.1 503 ")
        assert client.written.endswith(b"reset reason: connection timeout")
        record = world.record
        assert (record.flags, record.details) == (Flag.UF, "upstream_reset_before_response_started{connection_timeout}")
        assert record.fault_id == "f1"
        assert world.endpoints.asked == []


@in_virtual_time
async def test_a_connect_that_still_waits_when_it_heals_goes_through():
    async with scripted() as world:
        cut(world.proxy, CUT)
        client = await world.get()
        cut(world.proxy, {})
        await settled()
        await world.endpoints[PORT].say(OK)
        assert client.written.endswith(b"ok")


@in_virtual_time
async def test_a_pooled_connection_is_silent_and_the_route_timeout_ends_the_request():
    async with scripted(timeout="2s") as world:
        await world.get()
        pooled = world.endpoints[PORT]
        await pooled.say(OK)
        pooled.taken()
        cut(world.proxy, CUT)
        client = await world.get()
        await pass_time(2.1)
        assert client.written.startswith(b"HTTP/1.1 504 ")
        assert (world.record.flags, world.record.details) == (Flag.UT, "response_timeout")
        assert (pooled.written, pooled.ended, world.told.met) == (b"", "", ["f1"]), "the other side hears nothing, not even of the end"
        cut(world.proxy, {})
        await settled()
        assert (pooled.written, pooled.ended) == (b"", "aborted")
        client = await world.get()
        assert len(world.endpoints.made[PORT]) == 2
        await world.endpoints[PORT].say(OK)
        assert client.written.endswith(b"ok")


@in_virtual_time
async def test_what_waits_on_a_pooled_connection_passes_when_it_heals_and_the_connection_stays_pooled():
    async with scripted() as world:
        await world.get()
        pooled = world.endpoints[PORT]
        await pooled.say(OK)
        pooled.taken()
        cut(world.proxy, CUT)
        client = await world.get("/later")
        cut(world.proxy, {"10.0.0.9": "f2"})
        assert pooled.written.startswith(b"GET /later ")
        await pooled.say(OK)
        assert client.written.endswith(b"ok")
        await world.get("/again")
        assert world.endpoints.made[PORT] == [pooled]
        await pooled.say(OK)


@in_virtual_time
async def test_an_answer_under_way_stops_and_goes_on_when_it_heals():
    async with scripted() as world:
        client = await world.get()
        endpoint = world.endpoints[PORT]
        cut(world.proxy, CUT)
        assert not endpoint.reading
        await endpoint.say(OK)  # had left the kernel before
        assert client.written == b""
        cut(world.proxy, {})
        await settled()
        assert client.written.endswith(b"ok")
        assert endpoint.reading


@in_virtual_time
async def test_a_connection_that_was_under_way_when_it_came_is_silent_from_its_first_byte():
    async with scripted() as world:
        world.endpoints.slow[PORT] = asyncio.Event()
        client = await world.get()
        cut(world.proxy, CUT)
        world.endpoints.slow[PORT].set()
        await settled()
        assert world.endpoints[PORT].written == b""
        cut(world.proxy, {})
        assert world.endpoints[PORT].written.startswith(b"GET / ")
        await world.endpoints[PORT].say(OK)
        assert client.written.endswith(b"ok")


@in_virtual_time
async def test_other_addresses_are_as_they_were():
    async with scripted() as world:
        cut(world.proxy, {"127.0.0.2": "f1"})
        client = await world.get()
        await world.endpoints[PORT].say(OK)
        assert client.written.endswith(b"ok")
        assert world.told.met == []


@in_virtual_time
async def test_a_client_that_leaves_meanwhile_is_let_go_and_the_other_side_hears_of_it_later():
    async with scripted() as world:
        client = await world.get()
        endpoint = world.endpoints[PORT]
        cut(world.proxy, CUT)
        await client.leave()
        assert (world.record.flags, endpoint.ended) == (Flag.DC, "")
        cut(world.proxy, {})
        assert endpoint.ended == "aborted"


@in_virtual_time
async def test_a_large_body_waits_at_its_sender():
    async with scripted() as world:
        client = await world.get("/", "content-length: 1000000", method="POST")
        await settled()
        endpoint = world.endpoints[PORT]
        endpoint.taken()
        cut(world.proxy, CUT)
        await client.say(b"x" * FULL)
        assert client.reading
        await client.say(b"x")
        assert not client.reading
        cut(world.proxy, {})
        assert client.reading
        assert endpoint.written == b"x" * (FULL + 1)
        await client.leave()


@in_virtual_time
async def test_connections_that_are_over_are_not_remembered_for_ever():
    async with scripted() as world:
        for _ in range(10 * FEW):
            await world.get()
            await world.endpoints[PORT].say(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert len(world.proxy.upstreams.partitions._open["127.0.0.1"]) <= FEW


@in_virtual_time
async def test_the_end_of_the_sidecar_ends_what_is_held():
    world = Scripted(one_route(PORT))
    await world.get()
    cut(world.proxy, CUT)
    await world.close()
    assert world.endpoints[PORT].ended == "aborted"


def test_the_configuration_names_the_addresses_at_its_black_hole():
    hole = {**snapshots.cluster("BlackHoleCluster"), "metadata": {"filter_metadata": {"devmesh": {"partition": CUT}}}}
    assert snapshots.parsed(clusters=[hole]).partitions == CUT
    assert snapshots.parsed(clusters=[snapshots.cluster("BlackHoleCluster")]).partitions == {}
    broken = {**hole, "metadata": {"filter_metadata": {"devmesh": {"partition": ["10.0.0.1"]}}}}
    assert snapshots.refusal(clusters=[broken]).startswith("BlackHoleCluster: malformed resource")


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def on(loop: Callable[[], asyncio.AbstractEventLoop], test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test)


@LOOPS
def test_mtls_on_a_connection_that_is_in_the_pool_already_stands_still_and_goes_on(loop, tmp_path):
    seen: list[Any] = []
    ca = authority(tmp_path)

    async def conversation() -> None:
        async with app(answering(OK, seen)) as ours:
            chain = {
                **snapshots.http_chain(route_config=snapshots.table(snapshots.host(snapshots.route(route={"cluster": "c"})))),
                "filter_chain_match": {"transport_protocol": "tls"}, "transport_socket": downstream_tls(),
            }  # fmt: skip
            served = {
                "listeners": [
                    snapshots.listener(
                        chain, traffic_direction="INBOUND", listener_filters=[{"name": "envoy.filters.listener.tls_inspector"}]
                    )
                ],
                "clusters": [snapshots.cluster("c", (("127.0.0.1", ours.port),))],
            }
            async with sidecar(served, identity=Identity(credentials(ca, "server"))) as server:
                calls = one_route(server.port, cluster={"transport_socket": upstream_tls("server")})
                async with sidecar(calls, identity=Identity(credentials(ca, "client"))) as caller:
                    client = await caller.connect()
                    assert (await client.ask()).body == b"ok"
                    cut(caller.proxy, CUT)
                    client.get("/held")
                    await until(lambda: caller.records.met == ["f1"])
                    assert len(seen) == 1
                    cut(caller.proxy, {})
                    assert (await client.answer()).body == b"ok"
                    assert (len(seen), ours.connections) == (2, 1)

    on(loop, conversation())


@LOOPS
def test_a_tcp_connection_stands_still_and_loses_nothing(loop):
    async def conversation() -> None:
        async with app(echo) as ours, sidecar(tcp(ours.port)) as proxy:
            client = await proxy.connect()
            client.send(b"before")
            assert await client.reader.readexactly(6) == b"before"
            cut(proxy.proxy, CUT)
            data = bytes(range(256)) * 8_000
            client.send(data)
            client.writer.write_eof()
            await until(lambda: proxy.records.met == ["f1"])
            cut(proxy.proxy, {})
            assert await client.rest() == data + b"bye"
            assert (await proxy.records.next()).flags == Flag.NONE

    on(loop, conversation())


@in_virtual_time
async def test_a_new_tcp_connection_ends_by_the_connect_timeout():
    snapshot = tcp(1, cluster={"connect_timeout": "3s"})
    async with sidecar(snapshot) as proxy:
        cut(proxy.proxy, CUT)
        client = await proxy.connect()
        assert await client.closed()
        record = await proxy.records.next()
        assert (record.flags, record.transport_failure, record.fault_id) == (Flag.UF | Flag.URX, "connection_timeout", "f1")
        assert 3 <= now() < 4


@in_virtual_time
async def test_a_half_close_waits_behind_the_bytes_before_it():
    async with app(echo) as ours, sidecar(tcp(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"a")
        assert await client.reader.readexactly(1) == b"a"
        cut(proxy.proxy, CUT)
        client.send(b"b")
        client.writer.write_eof()
        await pass_time(1)
        cut(proxy.proxy, {})
        assert await client.rest() == b"bbye"
