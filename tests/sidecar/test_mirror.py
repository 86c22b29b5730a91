"""Mirrored requests: whole or not at all, and nothing of them reaches the client."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.sidecar import snapshots
from tests.sidecar.sidecars import OK, answering, app, one_route, refusing_port, sidecar
from tests.support.virtual_time import in_virtual_time, pass_time
from tests.support.waiting import until

FAILING = b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\noops"


def mirrored(port: int, mirror: int, percent: int = 100, timeout: str = "0s"):
    policy = {"cluster": "m", "runtime_fraction": {"default_value": {"numerator": percent}}, "disable_shadow_host_suffix_append": True}
    snapshot = one_route(port, action={"request_mirror_policies": [policy], "timeout": timeout})
    snapshot["clusters"].append(snapshots.cluster("m", (("127.0.0.1", mirror),)))
    return snapshot


@pytest.mark.parametrize("body", [b"", b"x" * 300_000])
async def test_the_mirror_gets_the_same_request_and_its_answer_is_dropped(body):
    seen, shadow = [], []
    async with (
        app(answering(OK, seen)) as ours,
        app(answering(FAILING, shadow)) as other,
        sidecar(mirrored(ours.port, other.port)) as proxy,
    ):
        for number in range(3):
            assert (await proxy.ask(f"/{number}", "x: y", method="POST" if body else "GET", body=body)).body == b"ok"
        await until(lambda: len(shadow) == 3)
        assert [(line, sent) for line, _, sent in shadow] == [(line, sent) for line, _, sent in seen]
        assert shadow[0][1]["x"] == "y"


async def test_a_fraction_of_none_mirrors_nothing():
    shadow = []
    async with app(answering()) as ours, app(answering(OK, shadow)) as other, sidecar(mirrored(ours.port, other.port, 0)) as proxy:
        for _ in range(20):
            await proxy.ask()
        assert (shadow, other.connections) == ([], 0)


async def test_a_mirror_that_refuses_or_never_answers_is_nobodys_trouble():
    sock, port = refusing_port()

    async def silent(reader, _):
        await reader.read()

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(sock)
        ours, mute = [await stack.enter_async_context(app(handler)) for handler in (answering(), silent)]
        for mirror in (port, mute.port):
            async with sidecar(mirrored(ours.port, mirror)) as proxy:
                assert [(await proxy.ask()).status for _ in range(3)] == [200] * 3


async def test_a_request_that_never_became_whole_is_not_mirrored():
    shadow = []
    async with app(answering()) as ours, app(answering(OK, shadow)) as other, sidecar(mirrored(ours.port, other.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        await until(lambda: len(proxy.proxy.exchanges) == 1)
        client.leave()
        await proxy.records.next()
        assert shadow == []


async def test_a_body_too_large_to_keep_is_not_mirrored_and_passes():
    shadow = []
    async with app(answering()) as ours, app(answering(OK, shadow)) as other, sidecar(mirrored(ours.port, other.port)) as proxy:
        assert (await proxy.ask(method="POST", body=b"x" * 3_000_000)).status == 200
        await asyncio.sleep(0)
        assert (shadow, other.connections) == ([], 0)


@in_virtual_time
async def test_a_mirror_is_given_up_at_the_routes_timeout_and_not_before():
    closed = asyncio.Event()

    async def silent(reader, _):
        await reader.read()
        closed.set()

    async with app(answering()) as ours, app(silent) as mute, sidecar(mirrored(ours.port, mute.port, timeout="9s")) as proxy:
        assert (await proxy.ask()).status == 200
        await pass_time(8.9)
        assert (mute.connections, closed.is_set()) == (1, False)
        await pass_time(0.2)
        assert closed.is_set()


async def test_an_answered_mirror_is_not_timed_any_more():
    async with app(answering()) as ours, app(answering()) as other, sidecar(mirrored(ours.port, other.port, timeout="9s")) as proxy:
        assert (await proxy.ask()).status == 200
        await until(lambda: other.connections == 1 and len(proxy.proxy.sweep) == 0)
