"""One request and what becomes of it: retries, time limits, circuit breakers, ejection, failing upstreams, leaving clients; over sockets."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from devmesh.sidecar.record import Flag
from devmesh.sidecar.timers import PERIOD
from tests.sidecar import snapshots
from tests.sidecar.sidecars import OK, answering, app, one_route, read_body, read_head, refusing_port, sidecar
from tests.support.virtual_time import in_virtual_time, now, pass_time
from tests.support.waiting import until

HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
FAILING = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
RESET = "upstream connect error or disconnect/reset before headers. "


def retrying(number: int = 2, on: str = "5xx", **fields):
    return {"retry_policy": {"retry_on": on, "num_retries": number, **fields}}


def statuses(*each: int):
    """An app that answers with these in turn, then with the last one for ever."""
    return lambda n, _: b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % each[min(n, len(each)) - 1]


def routed(*routes):
    table = snapshots.table(snapshots.host(*routes))
    return {"listeners": [snapshots.listener(snapshots.http_chain(route_config=table), traffic_direction="INBOUND")]}


async def silent(reader, _):
    await reader.read()


async def test_a_retry_that_succeeds_is_all_the_client_sees():
    async with app(answering(statuses(503, 503, 200))) as ours, sidecar(one_route(ours.port, action=retrying())) as proxy:
        assert (await proxy.ask()).status == 200
        record = await proxy.records.next()
        assert (record.flags, [attempt.status for attempt in record.attempts]) == (Flag.NONE, [503, 503, 200])


async def test_when_retries_are_exhausted_the_last_answer_passes_and_is_flagged():
    async with app(answering(FAILING)) as ours, sidecar(one_route(ours.port, action=retrying())) as proxy:
        assert (await proxy.ask()).status == 503
        record = await proxy.records.next()
        assert (record.flags, record.details, len(record.attempts)) == (Flag.URX, "via_upstream", 3)


async def test_without_a_policy_nothing_is_retried():
    async with app(answering(FAILING)) as ours, sidecar(one_route(ours.port)) as proxy:
        assert (await proxy.ask()).status == 503
        record = await proxy.records.next()
        assert (record.flags, len(record.attempts)) == (Flag.NONE, 1)


async def test_every_attempt_sends_the_whole_request_and_its_number():
    seen = []
    route = one_route(0, action=retrying(), host={"include_request_attempt_count": True})
    async with app(answering(statuses(503, 503, 200), seen)) as ours:
        route["clusters"] = [snapshots.cluster("c", (("127.0.0.1", ours.port),))]
        async with sidecar(route) as proxy:
            assert (await proxy.ask(method="POST", body=b"x" * 300_000)).status == 200
        assert [body for _, _, body in seen] == [b"x" * 300_000] * 3
        assert [headers["x-envoy-attempt-count"] for _, headers, _ in seen] == ["1", "2", "3"]


async def test_a_body_too_large_to_keep_is_sent_once_and_whole():
    seen = []
    async with app(answering(FAILING, seen)) as ours, sidecar(one_route(ours.port, action=retrying())) as proxy:
        assert (await proxy.ask(method="POST", body=b"x" * 3_000_000)).status == 503
        assert [len(body) for _, _, body in seen] == [3_000_000]


@in_virtual_time
async def test_a_body_that_arrives_while_a_retry_waits_is_sent_whole():
    """It may exceed what is kept for retries: the attempt to come must have all of it."""
    first = asyncio.Event()
    bodies = []

    async def handler(reader, writer):
        _, headers = await read_head(reader)
        if not first.is_set():
            first.set()
            return
        bodies.append((await read_body(reader, headers))[0])
        writer.write(OK)
        await reader.read()

    policy = retrying(on="reset", retry_back_off={"base_interval": "0.5s", "max_interval": "0.5s"})
    async with app(handler) as ours, sidecar(one_route(ours.port, action=policy)) as proxy:
        client = await proxy.connect()
        size = 2_500_000
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        await asyncio.wait_for(first.wait(), 60)
        (exchange,) = proxy.proxy.exchanges
        await until(lambda: exchange.router._retrying is not None or len(exchange.record.attempts) > 1)
        client.send(b"x" * size)
        assert (await client.answer()).status == 200
        assert [len(body) for body in bodies] == [size]


@in_virtual_time
async def test_a_per_try_timeout_is_retried_and_then_a_504():
    policy = retrying(1, per_try_timeout="0.05s")
    async with app(silent) as ours, sidecar(one_route(ours.port, action=policy)) as proxy:
        answer = await proxy.ask()
        assert (answer.status, answer.body) == (504, b"upstream request timeout")
        record = await proxy.records.next()
        assert (record.flags, record.details) == (Flag.UT | Flag.URX, "upstream_per_try_timeout")
        assert [attempt.error for attempt in record.attempts] == ["per_try_timeout"] * 2


@in_virtual_time
async def test_a_per_try_timeout_ends_with_the_head_of_the_response():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await pass_time(3)  # longer than the timeout: what is tested
        writer.write(b"k")
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port, action=retrying(1, per_try_timeout="1s"))) as proxy:
        assert (await proxy.ask()).body == b"ok"


@in_virtual_time
async def test_the_route_timeout_is_a_504():
    async with app(silent) as ours, sidecar(one_route(ours.port, action={"timeout": "4s"})) as proxy:
        started = now()
        answer = await proxy.ask()
        assert (answer.status, answer.body) == (504, b"upstream request timeout")
        assert 4 <= now() - started <= 4 + PERIOD * 1.01
        record = await proxy.records.next()
        assert (record.flags, record.details) == (Flag.UT, "response_timeout")


@in_virtual_time
async def test_the_route_timeout_cuts_an_answer_that_has_begun():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin")
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port, action={"timeout": "0.1s"})) as proxy:
        client = await proxy.connect()
        client.get()
        await client.reader.readuntil(b"begin")
        assert await client.closed()
        assert (await proxy.records.next()).flags & Flag.UT


@in_virtual_time
async def test_an_idle_stream_ends_after_its_timeout_even_with_a_per_try_timeout():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin")
        await reader.read()

    action = {"idle_timeout": "0.3s", **retrying(1, per_try_timeout="0.1s")}
    async with app(handler) as ours, sidecar(one_route(ours.port, action=action)) as proxy:
        client = await proxy.connect()
        client.get()
        await client.reader.readuntil(b"begin")
        assert await client.closed()
        assert (await proxy.records.next()).flags & Flag.SI


async def test_too_many_requests_overflow_and_the_others_are_served():
    limits = {"circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]}}
    go = asyncio.Event()
    reached = 0

    async def handler(reader, writer):
        nonlocal reached
        while True:
            await read_head(reader)
            reached += 1
            await go.wait()
            writer.write(OK)

    async with app(handler) as ours, sidecar(one_route(ours.port, cluster=limits)) as proxy:
        clients = [await proxy.connect() for _ in range(4)]
        clients[0].get()
        await until(lambda: reached == 1)
        for client in clients[1:]:
            client.get()
        await until(lambda: proxy.proxy.upstreams.load("c").overflows == 2)
        go.set()
        answers = [await client.answer() for client in clients]
        assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
        refused = next(answer for answer in answers if answer.status == 503)
        assert (refused["x-envoy-overloaded"], refused.body) == ("true", (RESET + "reset reason: overflow").encode())
        records = [await proxy.records.next() for _ in clients]
        assert sorted(record.flags for record in records) == [Flag.NONE, Flag.NONE, Flag.UO, Flag.UO]
        assert ours.connections == 1


async def test_max_requests_overflows_too():
    limits = {"circuit_breakers": {"thresholds": [{"max_requests": 1}]}}
    async with app(silent) as ours, sidecar(one_route(ours.port, cluster=limits)) as proxy:
        first = await proxy.connect()
        first.get()
        await until(lambda: proxy.proxy.upstreams.load("c").requests == 1)
        assert (await proxy.ask())["x-envoy-overloaded"] == "true"
        first.leave()
        await proxy.records.next()


async def test_an_ejected_endpoint_is_left_out_and_when_all_are_the_answer_is_uh():
    detection = {
        "outlier_detection": {"consecutive_5xx": 2, "base_ejection_time": "60s", "interval": "60s", "max_ejection_percent": 100},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "lb_policy": "ROUND_ROBIN",
    }
    async with contextlib.AsyncExitStack() as stack:
        bad = await stack.enter_async_context(app(answering(FAILING)))
        good = await stack.enter_async_context(app(answering(lambda n, _: OK if n < 20 else FAILING)))
        proxy = await stack.enter_async_context(sidecar(one_route(bad.port, good.port, cluster=detection)))
        client = await proxy.connect()
        while not proxy.proxy.upstreams.ejected("c"):
            await client.ask()
        assert proxy.proxy.upstreams.ejected("c") == {f"127.0.0.1:{bad.port}"}
        assert [(await client.ask()).status for _ in range(10)] == [200] * 10
        while len(proxy.proxy.upstreams.ejected("c")) < 2:
            await client.ask()
        answer = await client.ask()
        assert (answer.status, answer.body) == (503, b"no healthy upstream")


async def test_an_upstream_that_refuses_is_uf():
    sock, port = refusing_port()
    with sock:
        async with sidecar(one_route(port)) as proxy:
            answer = await proxy.ask()
            assert answer.status == 503
            assert answer.body.startswith((RESET + "reset reason: remote connection failure").encode())
            record = await proxy.records.next()
            assert record.flags == Flag.UF
            assert record.details.startswith("upstream_reset_before_response_started{remote_connection_failure")


async def test_a_refused_attempt_is_retried_elsewhere():
    sock, port = refusing_port()
    policy = retrying(
        3,
        "connect-failure",
        retry_host_predicate=[{"name": "envoy.retry_host_predicates.previous_hosts"}],
        host_selection_retry_max_attempts="5",
    )
    with sock:
        async with app(answering()) as ours, sidecar(one_route(port, ours.port, action=policy)) as proxy:
            assert [(await proxy.ask()).status for _ in range(8)] == [200] * 8


@pytest.mark.parametrize("reused", [False, True])
async def test_an_upstream_that_closes_before_its_answer_is_uc(reused):
    async with app(answering(lambda n, _: OK if reused and n == 1 else b"")) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        if reused:
            assert (await client.ask()).status == 200
            await proxy.records.next()
        answer = await client.ask()
        assert (answer.status, answer.body) == (503, (RESET + "reset reason: connection termination").encode())
        record = await proxy.records.next()
        assert (record.flags, record.details) == (Flag.UC, "upstream_reset_before_response_started{connection_termination}")


async def test_an_upstream_that_closes_in_the_middle_cuts_the_answer():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin")
        await writer.drain()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.get()
        head, _ = await read_head(client.reader)
        assert head == "HTTP/1.1 200 OK"
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() in (b"begin", b"")
        record = await proxy.records.next()
        assert (record.status, record.flags) == (200, Flag.UPE)


@pytest.mark.parametrize(
    "garbage",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 120_000,
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\n\r\nok",
    ],
)
async def test_an_upstream_that_speaks_no_http_is_a_502(garbage):
    async with app(answering(garbage)) as ours, sidecar(one_route(ours.port)) as proxy:
        assert (await proxy.ask()).status == 502
        assert (await proxy.records.next()).flags == Flag.UPE


async def test_a_connection_with_bytes_nobody_asked_for_is_not_used_again():
    async with app(answering(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert [(await client.ask()).body for _ in range(3)] == [b"ok"] * 3
        assert ours.connections == 3


@pytest.mark.parametrize("connected", [True, False])
async def test_a_client_that_leaves_takes_its_request_with_it(connected):
    gone = asyncio.Event()

    async def handler(reader, _):
        await read_head(reader)
        await reader.read()
        gone.set()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc")
        await until(lambda: len(proxy.proxy.exchanges) == 1)
        if connected:
            await until(lambda: ours.connections == 1)
        client.leave()
        record = await proxy.records.next()
        assert (record.flags, record.status, record.details) == (Flag.DC, 0, "downstream_remote_disconnect")
        if connected:
            await asyncio.wait_for(gone.wait(), 60)


async def test_a_client_that_leaves_during_a_back_off_ends_the_retries():
    policy = retrying(10, retry_back_off={"base_interval": "1s", "max_interval": "10s"})
    async with app(answering(FAILING)) as ours, sidecar(one_route(ours.port, action=policy)) as proxy:
        client = await proxy.connect()
        client.get()
        await until(lambda: proxy.proxy.upstreams.load("c").retries == 1)
        client.leave()
        assert (await proxy.records.next()).flags & Flag.DC
        assert proxy.proxy.upstreams.load("c").retries == 0


@pytest.mark.parametrize(
    "limits",
    [{"max_retries": 1}, {"retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 1}}],
    ids=["max_retries", "retry_budget"],
)
async def test_a_retry_counts_until_it_is_answered_and_one_too_many_is_flagged(limits):
    """Asked of Envoy 1.40: not only while it waits for its turn; the flag is UO, the answer the one that would have been retried."""
    answer = asyncio.Event()

    async def handler(reader, writer):
        while True:
            line, _ = await read_head(reader)
            if "/first" not in line or not first:
                writer.write(FAILING)
            else:
                await answer.wait()
                writer.write(OK)
            first.append(line)

    first: list[str] = []
    breakers = {"circuit_breakers": {"thresholds": [limits]}}
    action = retrying(3, retry_back_off={"base_interval": "0.001s"})
    async with app(handler) as ours, sidecar(one_route(ours.port, action=action, cluster=breakers)) as proxy:
        slow = await proxy.connect()
        slow.get("/first")
        await until(lambda: ours.connections == 2)
        assert (await proxy.ask("/second")).status == 503
        record = await proxy.records.next()
        assert (record.flags, len(record.attempts), record.details) == (Flag.UO, 1, "via_upstream")
        answer.set()
        assert (await slow.answer()).status == 200
        await proxy.records.next()
        assert len((await proxy.ask("/third")).headers)
        assert len((await proxy.records.next()).attempts) == 4


async def test_a_client_that_leaves_during_an_injected_delay_reaches_nobody():
    fault = {"name": "envoy.filters.http.fault", "typed_config": {"delay": {"fixed_delay": "60s", "percentage": {"numerator": 100}}}}
    route = one_route(1, manager={"http_filters": [fault, snapshots.ROUTER]})
    async with sidecar(route) as proxy:
        client = await proxy.connect()
        client.get()
        await until(lambda: len(proxy.proxy.exchanges) == 1)
        client.leave()
        assert (await proxy.records.next()).flags == Flag.DI | Flag.DC


async def test_a_configuration_that_changes_under_a_request_lets_it_end():
    go = asyncio.Event()

    async def handler(reader, writer):
        await read_head(reader)
        await go.wait()
        writer.write(OK)
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.get()
        await until(lambda: ours.connections == 1)
        proxy.proxy.apply(snapshots.parsed(**one_route(action={"cluster": "none"})))
        go.set()
        assert (await client.answer()).body == b"ok"
        assert (await client.ask()).status == 503


async def test_an_unknown_cluster_is_nc_and_an_empty_one_uh():
    async with sidecar(one_route(action={"cluster": "none"})) as proxy:
        assert (await proxy.ask()).status == 503
        assert (await proxy.records.next()).flags == Flag.NC
    async with sidecar(one_route()) as proxy:
        assert (await proxy.ask()).body == b"no healthy upstream"
        assert (await proxy.records.next()).flags == Flag.UH


@pytest.mark.parametrize(
    ("head", "coding"),
    [
        (b"HTTP/1.1 200 Fine\r\n\r\n", "chunked"),
        (b"HTTP/1.1 200 Fine\r\ncontent-length: 5\r\n\r\n", ""),
        (b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n", "chunked"),
        (b"HTTP/1.1 204 Fine\r\n\r\n", ""),
        (b"HTTP/1.1 304 Fine\r\n\r\n", ""),
    ],
)
async def test_an_answer_to_head_says_how_a_get_would_be_framed(head, coding):
    async with app(answering(head)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        for _ in range(2):
            assert (await client.ask(method="HEAD"))["transfer-encoding"] == coding


async def test_an_empty_reply_of_our_own_to_head_is_framed_likewise():
    async with sidecar(one_route(action={"cluster": "none"})) as proxy:
        answer = await proxy.ask(method="HEAD")
        assert (answer.status, answer["transfer-encoding"], answer["content-length"]) == (503, "chunked", "")
    async with sidecar(one_route()) as proxy:
        assert (await proxy.ask(method="HEAD"))["content-length"] == "19"


async def test_reason_phrases_are_not_the_apps():
    async with app(answering(b"HTTP/1.1 404 Gone fishing\r\ncontent-length: 0\r\n\r\n")) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.get()
        assert await client.reader.readline() == b"HTTP/1.1 404 Not Found\r\n"


async def test_hop_by_hop_headers_stay_on_their_hop():
    seen = []
    answer = b"HTTP/1.1 200 OK\r\nconnection: x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n"
    async with app(answering(answer, seen)) as ours, sidecar(one_route(ours.port)) as proxy:
        got = await proxy.ask("/", "connection: x-secret, keep-alive", "x-secret: 1", "keep-alive: 5", "te: trailers", "x-kept: 1")
        (_, headers, _) = seen[0]
        assert {"x-kept", "te"} <= headers.keys()
        assert not {"connection", "x-secret", "keep-alive"} & headers.keys()
        assert [name for name, _ in got.headers if name in ("connection", "keep-alive", "x-mine", "x-kept")] == ["x-mine", "x-kept"]


async def test_a_tunnel_that_nobody_asked_for_is_a_502():
    """Else what this client asks for next would be the app's to answer, whatever the routes say."""
    answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    async with app(answering(answer)) as ours, sidecar(one_route(ours.port)) as proxy:
        assert (await proxy.ask()).status == 502
        assert (await proxy.records.next()).flags == Flag.UPE


@pytest.mark.parametrize(
    ("method", "length"), [("GET", None), ("DELETE", None), ("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("OPTIONS", "0")]
)
async def test_a_request_without_a_body_says_so_where_its_method_might_have_one(method, length):
    seen = []
    async with app(answering(OK, seen)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(f"{method} / HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        await client.answer()
        assert seen[0][1].get("content-length") == length


async def test_a_204_has_no_length():
    async with app(answering(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n")) as ours, sidecar(one_route(ours.port)) as proxy:
        assert "content-length" not in dict((await proxy.ask()).headers)


async def test_a_target_with_a_fragment_is_refused():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        answer = await proxy.ask("/a#b")
        assert (answer.status, answer["connection"]) == (400, "close")
        assert (await proxy.records.next()).details == "path_normalization_failed"


@in_virtual_time
async def test_an_idle_upstream_connection_is_closed_and_the_next_request_makes_another():
    protocol = {"explicit_http_config": {"http_protocol_options": {}}, "common_http_protocol_options": {"idle_timeout": "0.1s"}}
    async with (
        app(answering()) as ours,
        sidecar(one_route(ours.port, cluster={"typed_extension_protocol_options": {HTTP: protocol}})) as proxy,
    ):
        client = await proxy.connect()
        assert [(await client.ask()).status for _ in range(2)] == [200, 200]
        assert ours.connections == 1
        await until(lambda: not proxy.proxy.upstreams.load("c").connections)
        assert (await client.ask()).status == 200
        assert ours.connections == 2


@pytest.mark.parametrize("busy", [0.0, 2.0], ids=["idle", "busy"])
@in_virtual_time
async def test_a_connection_upstream_serves_nothing_new_once_it_has_lasted_its_time(busy):
    """Asked of Envoy 1.40: an idle one is closed at once, a busy one after its response."""
    protocol = {"explicit_http_config": {"http_protocol_options": {}}, "common_http_protocol_options": {"max_connection_duration": "1s"}}

    async def handler(reader, writer):
        for pause in (busy, 0.0):
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(OK)

    async with app(handler) as ours, sidecar(one_route(ours.port, cluster={"typed_extension_protocol_options": {HTTP: protocol}})) as proxy:
        client = await proxy.connect()
        assert (await client.ask()).status == 200
        await pass_time(1.5)
        assert not proxy.proxy.upstreams.load("c").connections
        assert (await client.ask()).status == 200
        assert ours.connections == 2


async def test_a_400_of_our_own_is_the_last_answer_of_its_connection():
    abort = {"envoy.filters.http.fault": {"abort": {"http_status": 400, "percentage": {"numerator": 100}}}}
    async with sidecar(routed(snapshots.route(typed_per_filter_config=abort))) as proxy:
        client = await proxy.connect()
        assert (await client.ask())["connection"] == "close"
        assert await client.closed()


@pytest.mark.parametrize(("status", "location"), [(301, "http://a/x?q"), (201, "http://a/x?q"), (200, "")])
async def test_a_direct_answer_that_may_have_a_location_names_what_was_asked_for(status, location):
    async with sidecar(routed(snapshots.route(direct_response={"status": status}))) as proxy:
        answer = await proxy.ask("/x?q")
        assert (answer.status, answer["location"]) == (status, location)


@pytest.mark.parametrize(("kind", "status"), [("application/grpc", 200), ("application/grpc+proto", 200), ("application/grpc-web", 503)])
async def test_only_grpc_itself_has_a_failure_in_its_trailers(kind, status):
    async with sidecar(one_route()) as proxy:
        assert (await proxy.ask("/", f"content-type: {kind}")).status == status


CORS = {"allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}], "allow_methods": "GET"}
SAYS = {"response_headers_to_add": [{"header": {"key": "x-said", "value": "1"}}]}
PREFLIGHT = ("origin: http://a", "access-control-request-method: GET")


async def test_cors_is_for_requests_that_would_go_somewhere_and_its_own_answer_is_not_edited():
    config = {"typed_per_filter_config": {"envoy.filters.http.cors": CORS}, **SAYS}
    direct = snapshots.route(direct_response={"status": 204}, match={"prefix": "/direct"}, **config)
    async with sidecar(routed(direct, snapshots.route(**config))) as proxy:
        answers = [await proxy.ask(path, *PREFLIGHT, method="OPTIONS") for path in ("/direct", "/")]
        of_grpc = await proxy.ask("/", *PREFLIGHT, "content-type: application/grpc", method="OPTIONS")
    assert [(one.status, one["access-control-allow-origin"], one["x-said"]) for one in answers] == [(204, "", "1"), (200, "http://a", "")]
    assert of_grpc["grpc-status"] == ""


async def test_a_fault_over_a_redirect_is_not_edited_by_it():
    abort = {"envoy.filters.http.fault": {"abort": {"http_status": 503, "percentage": {"numerator": 100}}}}
    async with sidecar(
        routed(
            snapshots.route(redirect={"path_redirect": "/z"}, match={"prefix": "/r"}, typed_per_filter_config=abort, **SAYS),
            snapshots.route(typed_per_filter_config=abort, **SAYS),
        )
    ) as proxy:
        assert [(await proxy.ask(path))["x-said"] for path in ("/r", "/")] == ["", "1"]
