"""From first bytes to the handler of a filter chain."""

from __future__ import annotations

from tests.sidecar import snapshots
from tests.sidecar.sidecars import answering, app, one_route, sidecar
from tests.sidecar.test_chains import INSPECTORS
from tests.support.virtual_time import in_virtual_time, pass_time, settled


@in_virtual_time
async def test_a_head_in_pieces_is_inspected_and_served():
    async with app(answering()) as ours:
        snapshot = one_route(ours.port)
        snapshot["listeners"][0]["listener_filters"] = INSPECTORS
        async with sidecar(snapshot) as proxy:
            client = await proxy.connect()
            for piece in (b"G", b"ET", b" / HTTP/1.1\r\nho", b"st: a\r\n\r\n"):
                client.send(piece)
                await settled()
            assert (await client.answer()).body == b"ok"


@in_virtual_time
async def test_a_silent_client_is_closed_or_goes_on_when_the_inspectors_give_up():
    async with app(answering()) as ours:
        for goes_on in (False, True):
            snapshot = one_route(ours.port)
            snapshot["listeners"][0] |= {
                "listener_filters": INSPECTORS,
                "listener_filters_timeout": "15s",
                "continue_on_listener_filters_timeout": goes_on,
            }
            async with sidecar(snapshot) as proxy:
                client = await proxy.connect()
                await pass_time(14.9)
                assert len(proxy.proxy.undecided) == 1
                await pass_time(0.2)
                assert not proxy.proxy.undecided
                if goes_on:
                    assert (await client.ask()).status == 200
                else:
                    assert await client.closed()


async def test_without_a_configuration_nobody_is_let_in():
    async with sidecar({}) as proxy:
        assert await (await proxy.connect()).closed()


async def test_a_connection_that_no_chain_takes_is_closed():
    snapshot = one_route(1)
    snapshot["listeners"][0]["filter_chains"][0]["filter_chain_match"] = {"transport_protocol": "tls"}
    async with sidecar(snapshot) as proxy:
        client = await proxy.connect()
        client.get()
        assert await client.closed()


async def test_an_old_connection_meets_the_configuration_in_force_or_has_to_go():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert (await client.ask()).status == 200
        proxy.proxy.apply(
            snapshots.parsed(
                **one_route(ours.port, action={"prefix_rewrite": "/new"}),
            )
        )
        assert (await client.ask()).status == 200
        strict = one_route(ours.port)
        strict["listeners"][0]["filter_chains"][0]["filter_chain_match"] = {"transport_protocol": "tls"}
        proxy.proxy.apply(snapshots.parsed(**strict))
        client.get()
        assert await client.closed()
