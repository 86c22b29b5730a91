"""The router as a conversation: what goes to which endpoint, what is tried again and when, what the client is told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from devmesh.sidecar import router
from devmesh.sidecar.record import Direction, Flag
from devmesh.sidecar.timers import PERIOD
from tests.sidecar import snapshots
from tests.sidecar.sidecars import one_route
from tests.support.scripted import OK, Scripted
from tests.support.virtual_time import in_virtual_time, now, pass_time, settled

Json = dict[str, Any]
A, B = 1001, 1002  # ports of endpoints
BUSY = b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy"


@contextlib.asynccontextmanager
async def scripted(snapshot: Json, **options: Any) -> AsyncIterator[Scripted]:
    world = Scripted(snapshot, **options)
    try:
        yield world
    finally:
        await world.close()


def retrying(number: int = 2, on: str = "5xx,connect-failure,reset", **fields: Any) -> Json:
    back_off = {"base_interval": "1s", "max_interval": "1s"}
    return {"retry_policy": {"retry_on": on, "num_retries": number, "retry_back_off": back_off, **fields}}


def lines(written: bytes) -> list[str]:
    return written.decode().split("\r\n")


# -- the request -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_rewritten_request_says_what_it_was():
    action = {"prefix_rewrite": "/new", "host_rewrite_literal": "b.example", "timeout": "3s"}
    async with scripted(one_route(A, action=action)) as world:
        client = await world.get("/x?q")
        sent = lines(world.endpoints[A].written)
        assert sent[:2] == ["GET /newx?q HTTP/1.1", "host: b.example"]
        assert {"x-envoy-original-path: /x?q", "x-envoy-original-host: a", "x-envoy-expected-rq-timeout-ms: 3000"} <= set(sent)
        await world.endpoints[A].say(OK)
        assert client.written.endswith(b"ok")
        assert (world.record.target, world.record.authority) == (b"/x?q", b"b.example")


@in_virtual_time
async def test_a_rewrite_that_changes_nothing_says_what_it_was_too():
    async with scripted(one_route(A, action={"prefix_rewrite": "/"})) as world:
        await world.get("/x", "x-envoy-original-path: /forged")
        assert [line for line in lines(world.endpoints[A].written) if "original" in line] == ["x-envoy-original-path: /x"]
        await world.endpoints[A].say(OK)
        assert world.record.target == b"/x"


@in_virtual_time
async def test_the_number_of_attempts_is_ours_and_not_a_clients():
    async with scripted(one_route(A, host={"include_request_attempt_count": True})) as world:
        await world.get("/", "x-envoy-attempt-count: 9")
        assert [line for line in lines(world.endpoints[A].written) if "attempt" in line] == ["x-envoy-attempt-count: 1"]
        await world.endpoints[A].say(OK)


@in_virtual_time
async def test_an_inbound_sidecar_passes_on_no_timeout_but_its_own():
    async with scripted(one_route(A), direction=Direction.INBOUND) as world:
        await world.get("/", "x-envoy-expected-rq-timeout-ms: 9")
        assert b"expected-rq-timeout" not in world.endpoints[A].written
        await world.endpoints[A].say(OK)


@pytest.mark.parametrize(
    ("action", "status", "flags", "details"),
    [
        ({"cluster": "nowhere"}, 503, Flag.NC, "cluster_not_found"),
        ({"cluster": "empty"}, 503, Flag.UH, "no_healthy_upstream"),
        ({"cluster": "BlackHoleCluster"}, 502, Flag.NONE, "direct_response"),
    ],
)
def test_where_nobody_can_be_asked_the_client_is_told(action, status, flags, details):
    @in_virtual_time
    async def conversation():
        snapshot = one_route(A, action=action)
        snapshot["clusters"] += [snapshots.cluster("empty"), snapshots.cluster("BlackHoleCluster")]
        async with scripted(snapshot) as world:
            client = await world.get()
            assert client.written.startswith(b"HTTP/1.1 %d " % status)
            assert (world.record.status, world.record.flags, world.record.details) == (status, flags, details)
            assert world.endpoints.asked == []

    conversation()


@in_virtual_time
async def test_a_circuit_breaker_that_is_open_is_told_at_once_and_closes_again():
    limits = {"circuit_breakers": {"thresholds": [{"max_requests": 1}]}}
    async with scripted(one_route(A, cluster=limits)) as world:
        await world.get()
        refused = await world.get()
        assert b"x-envoy-overloaded: true" in refused.written
        assert (world.record.flags, len(world.record.attempts)) == (Flag.UO, 1)
        await world.endpoints[A].say(OK)
        assert b"overloaded" not in (await world.get()).written
        await world.endpoints[A].say(OK)


@in_virtual_time
async def test_a_body_that_comes_before_the_connection_waits_for_it_and_stops_the_client():
    async with scripted(one_route(A)) as world:
        slow = world.endpoints.slow[A] = asyncio.Event()
        client = world.client()
        await client.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + b"x" * 60_000)
        assert client.reading
        await client.say(b"x" * 20_000)
        assert not client.reading
        slow.set()
        await settled()
        assert client.reading
        assert world.endpoints[A].written.count(b"x" * 1000) == 80
        await client.say(b"y" * 20_000)
        assert world.endpoints[A].written.endswith(b"y" * 20_000)
        await world.endpoints[A].say(OK)
        assert client.written.endswith(b"ok")


@in_virtual_time
async def test_an_endpoint_that_does_not_read_stops_the_client_until_it_does():
    async with scripted(one_route(A)) as world:
        client = world.client()
        await client.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        world.endpoints[A].protocol.pause_writing()
        assert not client.reading
        world.endpoints[A].protocol.resume_writing()
        assert client.reading
        await client.say(b"resten")
        await world.endpoints[A].say(OK)


# -- attempts ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_failed_attempt_is_made_again_after_its_back_off_and_both_are_recorded():
    async with scripted(one_route(A, action=retrying(1), host={"include_request_attempt_count": True})) as world:
        client = await world.get()
        assert b"x-envoy-attempt-count: 1" in world.endpoints[A].taken()
        await world.endpoints[A].say(BUSY)
        assert client.written == b""
        assert world.proxy.upstreams.load("c").retries == 1
        await pass_time(1)
        assert b"x-envoy-attempt-count: 2" in world.endpoints[A].written
        assert world.proxy.upstreams.load("c").retries == 1
        await world.endpoints[A].say(OK)
        assert world.proxy.upstreams.load("c").retries == 0
        assert client.written.startswith(b"HTTP/1.1 200 OK")
        assert [one.status for one in world.record.attempts] == [503, 200]
        assert world.record.flags == Flag.NONE


@in_virtual_time
async def test_the_last_answer_is_passed_on_with_its_body_when_the_retries_are_spent():
    async with scripted(one_route(A, action=retrying(1))) as world:
        client = await world.get()
        await world.endpoints[A].say(BUSY)
        await pass_time(1)
        await world.endpoints[A].say(BUSY)
        assert client.written.endswith(b"busy")
        assert (world.record.status, world.record.flags, world.record.details) == (503, Flag.URX, "via_upstream")


@in_virtual_time
async def test_an_answer_that_no_retry_is_for_is_passed_on():
    async with scripted(one_route(A, action=retrying(on="connect-failure"))) as world:
        client = await world.get()
        await world.endpoints[A].say(BUSY)
        assert client.written.endswith(b"busy")
        assert world.record.flags == Flag.NONE


@in_virtual_time
async def test_a_connection_that_is_refused_is_tried_at_an_endpoint_that_was_not():
    previous = {"retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}], "host_selection_retry_max_attempts": "20"}
    async with scripted(one_route(A, B, action=retrying(1, **previous), cluster={"lb_policy": "RANDOM"})) as world:
        world.endpoints.refusing.add(A)
        for _ in range(20):
            client = await world.get()
            await pass_time(1)
            await world.endpoints[B].say(OK)
            assert client.written.endswith(b"ok")
        assert 5 < world.endpoints.asked.count(A) <= 20


@in_virtual_time
async def test_a_refused_connection_without_retries_is_the_clients_503():
    async with scripted(one_route(A)) as world:
        world.endpoints.refusing.add(A)
        client = await world.get()
        assert client.written.endswith(b"reset reason: remote connection failure")
        assert world.record.flags == Flag.UF
        assert world.record.transport_failure == "delayed_connect_error:_Connection_refused"


@in_virtual_time
async def test_a_retry_sends_the_whole_body_again():
    async with scripted(one_route(A, action=retrying(1))) as world:
        client = world.client()
        await client.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf")
        await client.say(b"full")
        await world.endpoints[A].leave()
        await pass_time(1)
        assert world.endpoints[A].written.endswith(b"\r\n\r\nhalffull")
        await world.endpoints[A].say(OK)
        assert client.written.endswith(b"ok")


@in_virtual_time
async def test_a_body_too_large_to_keep_is_sent_once():
    size = router.REPLAY_LIMIT + 1
    async with scripted(one_route(A, action=retrying(1))) as world:
        client = world.client()
        await client.say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        await client.say(b"x" * size)
        await world.endpoints[A].leave()
        await pass_time(5)
        assert client.written.startswith(b"HTTP/1.1 503 ")
        assert (world.endpoints.asked, world.record.flags) == ([A], Flag.UC)


@in_virtual_time
async def test_a_retry_that_the_breaker_does_not_admit_is_not_made():
    limits = {"circuit_breakers": {"thresholds": [{"max_retries": 1}]}}
    async with scripted(one_route(A, action=retrying(1), cluster=limits)) as world:
        first, second = await world.get(), await world.get()
        waiting, answered = world.endpoints.made[A]
        await waiting.say(BUSY)
        await answered.say(BUSY)
        assert (first.written, second.written.endswith(b"busy")) == (b"", True)
        await pass_time(1)
        await world.endpoints[A].say(OK)
        assert first.written.endswith(b"ok")


@in_virtual_time
async def test_a_client_that_leaves_ends_its_attempt_and_its_retry():
    async with scripted(one_route(A, action=retrying(3))) as world:
        client = await world.get()
        await client.leave()
        assert world.endpoints[A].ended == "aborted"
        waiting = await world.get()
        await world.endpoints[A].say(BUSY)
        await waiting.leave()
        assert world.proxy.upstreams.load("c").retries == 0
        await pass_time(10)
        assert world.endpoints.asked == [A, A]
        assert [one.flags for one in world.told.records] == [Flag.DC, Flag.DC]


# -- the response ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_informational_heads_go_by_and_the_final_one_is_the_answer():
    async with scripted(one_route(A)) as world:
        client = await world.get()
        await world.endpoints[A].say(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        assert client.taken().startswith(b"HTTP/1.1 103 Unknown\r\nlink: x")
        await world.endpoints[A].say(OK)
        assert client.written.startswith(b"HTTP/1.1 200 OK")


@in_virtual_time
async def test_an_app_that_tells_its_client_to_go_on_is_the_one_that_answers():
    async with scripted(one_route(A, manager={"proxy_100_continue": True}, action=retrying(2))) as world:
        client = await world.get("/", "expect: 100-continue", method="POST", body=b"abc")
        assert client.written == b""
        await world.endpoints[A].say(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.taken().startswith(b"HTTP/1.1 100 Continue")
        await world.endpoints[A].say(BUSY)
        assert client.written.endswith(b"busy"), "not retried: nobody else has told the client anything"
        assert (world.endpoints.asked, world.record.flags) == ([A], Flag.NONE)


@in_virtual_time
async def test_retries_are_spent_only_where_there_would_have_been_another():
    async with scripted(one_route(A, action=retrying(1, on="5xx"))) as world:
        await world.get()
        await world.endpoints[A].say(BUSY)
        await pass_time(1)
        await world.endpoints[A].leave()
        assert world.record.flags == Flag.UC | Flag.URX
    async with scripted(one_route(A, action=retrying(1, on="retriable-4xx"))) as world:
        await world.get()
        await world.endpoints[A].say(BUSY.replace(b"503", b"409"))
        await pass_time(1)
        await world.endpoints[A].leave()
        assert world.record.flags == Flag.UC


@in_virtual_time
async def test_an_answer_that_breaks_off_is_never_made_whole_by_another():
    async with scripted(one_route(A, action=retrying(2))) as world:
        client = await world.get()
        await world.endpoints[A].say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
        await world.endpoints[A].leave()
        assert (client.written.endswith(b"part"), client.ended) == (True, "aborted")
        assert (world.endpoints.asked, world.record.flags) == ([A], Flag.UPE)


@in_virtual_time
async def test_a_tunnel_outlives_the_routes_timeout():
    async with scripted(one_route(A, action={"timeout": "1s"}, manager={"upgrade_configs": [{"upgrade_type": "websocket"}]})) as world:
        client = await world.get("/", "connection: upgrade", "upgrade: websocket")
        assert b"connection: upgrade\r\nupgrade: websocket" in world.endpoints[A].taken()
        await world.endpoints[A].say(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await pass_time(100)
        await client.say(b"up")
        await world.endpoints[A].say(b"down")
        assert (world.endpoints[A].written, client.written.endswith(b"down")) == (b"up", True)
        await client.leave()
        assert (world.record.status, world.record.bytes_sent, world.record.bytes_received) == (101, 4, 2)


# -- time --------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_routes_timeout_covers_all_attempts_and_their_back_off():
    async with scripted(one_route(A, action={"timeout": "2s", **retrying(5)})) as world:
        client = await world.get()
        await pass_time(1)
        await world.endpoints[A].say(BUSY)
        await pass_time(1.1)  # its second attempt has just begun
        assert client.written.startswith(b"HTTP/1.1 504 ")
        assert (world.record.flags, world.record.details) == (Flag.UT, "response_timeout")
        assert now() <= 2.1 + PERIOD


@in_virtual_time
async def test_the_routes_timeout_begins_after_an_injected_delay():
    snapshot = one_route(A, action={"timeout": "2s"})
    manager = snapshot["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    delay = {"fixed_delay": "5s", "percentage": {"numerator": 100}}
    manager["http_filters"].insert(0, {"name": "envoy.filters.http.fault", "typed_config": {"delay": delay}})
    async with scripted(snapshot) as world:
        client = await world.get()
        await pass_time(5)
        assert len(world.endpoints.asked) == 1
        await pass_time(1.9)
        await world.endpoints[A].say(OK)
        assert client.written.endswith(b"ok")
        assert world.record.flags == Flag.DI


@in_virtual_time
@pytest.mark.parametrize("elsewhere", [{}, {"127.0.9.9": "f2"}], ids=["alone", "beside a partition of others"])
async def test_a_request_that_a_fault_delayed_counts_as_its_hit_when_it_has_been_answered(elsewhere):
    snapshot = one_route(A)
    (route,) = snapshot["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    route["metadata"] = {"filter_metadata": {"devmesh": {"fault": "f1"}}}
    delay = {"fixed_delay": "5s", "percentage": {"numerator": 100}}
    route["typed_per_filter_config"] = {"envoy.filters.http.fault": {"delay": delay}}
    async with scripted(snapshot) as world:
        world.proxy.apply(dataclasses.replace(world.proxy.config, partitions=elsewhere))
        await world.get()
        await pass_time(5)
        await world.endpoints[A].say(OK)
        assert (world.record.flags, world.record.fault_id) == (Flag.DI, "f1")


@in_virtual_time
async def test_an_attempt_that_takes_too_long_is_given_up_and_made_again():
    async with scripted(one_route(A, action=retrying(1, per_try_timeout="1s"))) as world:
        client = await world.get()
        await pass_time(1 + PERIOD)
        assert world.endpoints[A].ended == "aborted"
        await pass_time(1)
        await world.endpoints[A].say(OK)
        assert client.written.endswith(b"ok")
        assert [one.error for one in world.record.attempts] == ["per_try_timeout", ""]


@in_virtual_time
async def test_what_takes_longer_than_it_may_in_all_is_ended():
    async with scripted(one_route(A, action={"max_stream_duration": {"max_stream_duration": "3s"}})) as world:
        client = await world.get()
        await pass_time(3 + PERIOD)
        assert client.written.endswith(b"downstream duration timeout")
        assert world.record.details == "max_duration_timeout"


@in_virtual_time
async def test_an_endpoint_that_is_silent_is_told_to_the_outlier_detector():
    outlier = {
        "outlier_detection": {"consecutive_5xx": 1, "max_ejection_percent": 100},
        "common_lb_config": {"healthy_panic_threshold": {}},
    }
    async with scripted(one_route(A, action={"timeout": "1s"}, cluster=outlier)) as world:
        await world.get()
        await pass_time(1 + PERIOD)
        assert world.proxy.upstreams.ejected("c")
        assert (await world.get()).written.endswith(b"no healthy upstream")
