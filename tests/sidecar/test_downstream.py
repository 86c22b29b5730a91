"""The client's side of HTTP/1.1, over sockets: connections that persist, requests in order, bodies in both directions, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from devmesh.sidecar.record import Flag
from tests.sidecar.sidecars import OK, answering, app, one_route, read_body, read_head, sidecar
from tests.sidecar.test_chains import INSPECTORS
from tests.support.virtual_time import in_virtual_time, pass_time, settled
from tests.support.waiting import until


def echo_target(_: int, line: str) -> bytes:
    body = line.split(" ")[1].encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def test_a_connection_persists_on_both_sides():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        for _ in range(5):
            assert (await client.ask()).body == b"ok"
        assert ours.connections == 1


async def test_pipelined_requests_are_answered_in_order():
    async with app(answering(echo_target)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        targets = [f"/{number}" for number in range(50)]
        for target in targets:
            client.get(target)
        assert [(await client.answer()).body.decode() for _ in targets] == targets


async def test_pipelined_bodies_are_not_taken_for_requests():
    seen = []
    async with app(answering(OK, seen)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        inner = b"GET /inner HTTP/1.1\r\nhost: a\r\n\r\n"
        client.get("/1", method="POST", body=inner)
        client.send(b"POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(inner) + inner + b"\r\n0\r\n\r\n")
        client.get("/3")
        for _ in range(3):
            assert (await client.answer()).status == 200
        assert [(line.split(" ")[1], body) for line, _, body in seen] == [("/1", inner), ("/2", inner), ("/3", b"")]


async def test_a_request_that_comes_byte_by_byte_is_one_request():
    seen = []
    async with app(answering(OK, seen)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        raw = b"\r\nPOST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n"
        for byte in raw:
            client.send(bytes((byte,)))
            await asyncio.sleep(0)
            await client.writer.drain()
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert [(line.split(" ")[1], body) for line, _, body in seen] == [("/a", b"abc"), ("/b", b"")]


async def test_an_empty_line_between_requests_is_passed_over():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert (await client.ask(method="POST", body=b"x")).status == 200
        client.send(b"\r\n")
        await client.writer.drain()
        assert (await client.ask()).status == 200


async def test_chunks_and_trailers_pass_both_ways_as_they_were():
    reached = asyncio.get_running_loop().create_future()

    async def handler(reader, writer):
        _, headers = await read_head(reader)
        reached.set_result(await read_body(reader, headers))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3;a=b\r\nabc\r\n")
        await writer.drain()
        writer.write(b"2\r\nde\r\n0\r\nx-sum: 5\r\nx-more: 6\r\n\r\n")
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n0\r\n\r\n")
        client.send(b"\r\n0\r\ngrpc-status: 0\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 200
        assert await reached == (b"0\r\n\r\n", ["grpc-status: 0"])
        assert (answer.body, answer.trailers) == (b"abcde", ["x-sum: 5", "x-more: 6"])


async def test_a_body_that_ends_with_the_connection_reaches_the_client_in_chunks():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        for _ in range(2):
            answer = await client.ask()
            assert (answer.status, answer.body, answer["transfer-encoding"]) == (200, b"hello", "chunked")


async def test_an_answer_to_head_has_a_length_and_no_body():
    async with app(answering(lambda _, line: OK[:-2] if line.startswith("HEAD") else OK)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        answer = await client.ask(method="HEAD")
        assert (answer.status, answer["content-length"]) == (200, "2")
        assert (await client.ask()).body == b"ok"
        assert ours.connections == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_keep_the_connection(status):
    first = b"HTTP/1.1 %d X\r\netag: a\r\n\r\n" % status
    async with app(answering(lambda n, _: first if n == 1 else OK)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert (await client.ask()).status == status
        assert (await client.ask()).body == b"ok"


async def test_a_client_that_waits_for_100_continue_has_it_once_and_from_us():
    async def handler(reader, writer):
        _, headers = await read_head(reader)
        assert "expect" not in dict(headers)
        body = await reader.readexactly(3)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" + body)
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert (await client.answer()).status == 100
        client.send(b"abc")
        assert (await client.answer()).body == b"abc"


async def test_early_hints_pass_before_the_answer():
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with app(answering(hints + hints + OK)) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert [(await client.ask()).status, (await client.answer()).status, (await client.answer()).body] == [103, 103, b"ok"]


async def test_connection_close_is_kept_by_both():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert (await client.ask("/", "connection: close"))["connection"] == "close"
        assert await client.closed()


@pytest.mark.parametrize(
    ("raw", "status", "details"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "missing_host_header"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "http1.codec_error"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "http1.content_length_and_chunked_not_allowed",
        ),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400, "http1.codec_error"),
        (b"GET / HTTP/1.1\nhost: a\n\n", 400, "http1.codec_error"),
        (b"GET / HTTP/1.1\r\nhost: a\n", 400, "http1.codec_error"),
        (b"\x00\x01\x02\x03", 400, "http1.codec_error"),
        (b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426, "low_version"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 61 * 1024 + b"\r\n\r\n", 431, "http1.headers_too_large"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 62 * 1024, 431, "http1.headers_too_large"),
    ],
)
async def test_a_bad_request_is_answered_recorded_and_never_forwarded(raw, status, details):
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(raw + b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (status, "close")
        assert await client.closed()
        record = await proxy.records.next()
        assert (record.status, record.details) == (status, details)
        assert bool(record.flags & Flag.DPE) is (details != "missing_host_header")
        assert proxy.records.empty
        assert ours.connections == 0


async def test_ten_megabytes_of_headers_are_refused_and_the_client_can_read_why():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: %s\r\n" % (b"a" * 1000) * 10_000 + b"\r\n")
        assert (await client.answer()).status == 431
        assert ours.connections == 0


async def test_a_head_of_almost_sixty_kibibytes_is_forwarded():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        assert (await proxy.ask("/", "x: " + "a" * 59 * 1024)).status == 200


async def test_half_a_request_and_a_client_that_leaves_reach_nobody():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        for cut in (b"G", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\n"):
            client = await proxy.connect()
            client.send(cut)
            await client.writer.drain()
            client.writer.write_eof()
            assert await client.closed()
        assert (ours.connections, proxy.records.empty) == (0, True)


async def test_a_body_that_is_no_chunks_is_refused_before_an_answer_has_begun():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        assert (await client.answer()).status == 400
        assert await client.closed()


async def test_a_body_that_is_no_chunks_cuts_an_answer_that_has_begun():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin")
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        await client.reader.readuntil(b"begin")
        client.send(b"zz\r\n")
        assert await client.closed()


async def test_an_answer_that_overtakes_its_request_lets_the_rest_be_sent():
    """A redirect to a POST: the body still to come is read and dropped, the connection goes on or closes, nothing hangs."""

    async def handler(reader, writer):
        await read_head(reader)
        writer.write(OK)
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        size = 3 * 1024 * 1024
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        answer = await client.answer()
        assert answer.status == 200
        if answer["connection"] != "close":
            client.send(b"x" * size)
            assert (await client.ask()).status == 200


async def test_a_large_body_passes_both_ways_whole():
    async def handler(reader, writer):
        _, headers = await read_head(reader)
        body, _ = await read_body(reader, headers)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.read()

    body = bytes(range(256)) * 40_000
    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        assert (await proxy.ask(method="POST", body=body)).body == body
        record = await proxy.records.next()
        assert (record.bytes_received, record.bytes_sent) == (len(body), len(body))


@in_virtual_time
async def test_a_client_that_does_not_read_stops_the_app():
    sent = 0

    async def handler(reader, writer):
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.writer.transport.pause_reading()
        client.get()
        await settled()
        assert 0 < sent < 30_000_000
        (connection,) = proxy.proxy.connections
        assert connection.transport.get_write_buffer_size() < 2_000_000
        client.leave()
        record = await proxy.records.next()
        assert record.flags & Flag.DC


@in_virtual_time
async def test_an_app_that_does_not_read_stops_the_client():
    go = asyncio.Event()

    async def handler(reader, writer):
        _, headers = await read_head(reader)
        await go.wait()
        body, _ = await read_body(reader, headers)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-size: %d\r\n\r\n" % len(body))
        await reader.read()

    size = 30_000_000
    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await settled()
        assert client.writer.transport.get_write_buffer_size() > 10_000_000
        go.set()
        assert (await client.answer())["x-size"] == str(size)


async def test_an_upgraded_connection_is_a_tunnel():
    async def handler(reader, writer):
        _, headers = await read_head(reader)
        named = dict(headers)
        assert (named["connection"].lower(), named["upgrade"], named["sec-websocket-key"]) == ("upgrade", "websocket", "k")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst")
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.write(b"last")

    upgrades = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    async with app(handler) as ours, sidecar(one_route(ours.port, manager=upgrades)) as proxy:
        client = await proxy.connect()
        answer = await client.ask("/", "connection: Upgrade", "upgrade: websocket", "sec-websocket-key: k")
        assert (answer.status, answer["upgrade"]) == (101, "websocket")
        assert await client.reader.readexactly(5) == b"first"
        client.send(b"\r\n\r\n\x00abc")
        assert await client.reader.readexactly(8) == b"\r\n\r\n\x00ABC"
        client.leave()
        record = await proxy.records.next()
        assert (record.status, record.bytes_sent, record.bytes_received) == (101, 13, 8)


async def test_an_app_that_ends_a_tunnel_ends_it_for_the_client():
    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + b"x" * 3_000_000)
        await writer.drain()

    upgrades = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    async with app(handler) as ours, sidecar(one_route(ours.port, manager=upgrades)) as proxy:
        client = await proxy.connect()
        assert (await client.ask("/", "connection: Upgrade", "upgrade: websocket")).status == 101
        assert len(await client.rest()) == 3_000_000
        record = await proxy.records.next()
        assert (record.status, record.flags) == (101, Flag.NONE)


async def test_an_upgrade_that_the_app_declines_is_an_ordinary_answer():
    upgrades = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    async with app(answering()) as ours, sidecar(one_route(ours.port, manager=upgrades)) as proxy:
        client = await proxy.connect()
        assert (await client.ask("/", "connection: Upgrade", "upgrade: websocket")).body == b"ok"
        assert (await client.ask()).body == b"ok"


async def test_connect_to_an_ordinary_listener_is_no_route():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.answer()).status == 404
        assert ours.connections == 0


async def test_draining_closes_idle_connections_and_lets_the_last_answer_out():
    go = asyncio.Event()

    async def handler(reader, writer):
        while True:
            line, _ = await read_head(reader)
            if "/slow" in line:
                await go.wait()
            writer.write(OK)

    async with app(handler) as ours, sidecar(one_route(ours.port)) as proxy:
        idle, busy = await proxy.connect(), await proxy.connect()
        await idle.ask()
        busy.get("/slow")
        async with asyncio.timeout(60):
            while len(proxy.proxy.exchanges) < 1:
                await asyncio.sleep(0)
        draining = asyncio.ensure_future(proxy.proxy.drain(5))
        assert await idle.closed()
        with pytest.raises(OSError):
            await proxy.connect()
        go.set()
        answer = await busy.answer()
        assert (answer.body, answer["connection"]) == (b"ok", "close")
        assert await busy.closed()
        await draining


@pytest.mark.parametrize("sent", [b"", b"GE", b"\x16\x03\x01"], ids=["nothing", "half a method", "half a ClientHello"])
async def test_draining_closes_connections_whose_protocol_is_not_known_yet(sent):
    async with app(answering()) as ours:
        snapshot = one_route(ours.port)
        snapshot["listeners"][0]["listener_filters"] = INSPECTORS
        async with sidecar(snapshot) as proxy:
            client = await proxy.connect()
            client.send(sent)
            await until(lambda: len(proxy.proxy.undecided) == 1)
            draining = asyncio.ensure_future(proxy.proxy.drain(5))
            assert await client.closed()
            await draining
            assert not proxy.proxy.undecided


@in_virtual_time
async def test_a_request_must_be_whole_within_the_request_timeout():
    async with app(answering()) as ours, sidecar(one_route(ours.port, manager={"request_timeout": "0.05s"})) as proxy:
        for sent in (b"GET / HTTP/1.1\r\nho", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf"):
            client = await proxy.connect()
            client.send(sent)
            answer = await client.answer()
            assert (answer.status, answer.body, answer["connection"]) == (408, b"request timeout", "close")
            record = await proxy.records.next()
            assert (record.status, record.flags, record.details) == (408, Flag.NONE, "request_overall_timeout")


@in_virtual_time
async def test_an_answer_that_has_begun_or_a_request_that_is_whole_ends_the_request_timeout():
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(reader, writer):
        line, headers = await read_head(reader)
        if "/early" in line:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        begun.set()
        await go.wait()
        await read_body(reader, headers)
        writer.write(b"ok" if "/early" in line else OK)

    async with app(handler) as ours, sidecar(one_route(ours.port, manager={"request_timeout": "0.05s"})) as proxy:
        for start, rest in (
            (b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n", b"rest"),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b""),
        ):
            begun.clear()
            go.clear()
            client = await proxy.connect()
            client.send(start)
            await begun.wait()
            connection = next(iter(proxy.proxy.connections))
            await until(lambda connection=connection: connection._awaited is None)
            client.send(rest)
            go.set()
            assert (await client.answer()).body == b"ok"
            client.leave()
            await until(lambda: not proxy.proxy.connections)


@in_virtual_time
async def test_an_idle_connection_is_closed_and_a_busy_one_is_not():
    options = {"common_http_protocol_options": {"idle_timeout": "2s"}}

    async def handler(reader, writer):
        await read_head(reader)
        await pass_time(4)  # longer than the timeout: what is tested
        writer.write(OK)
        await reader.read()

    async with app(handler) as ours, sidecar(one_route(ours.port, manager=options)) as proxy:
        client, silent = await proxy.connect(), await proxy.connect()
        assert (await client.ask()).status == 200
        assert await client.closed()
        assert await silent.closed()


async def test_damaged_requests_hang_nothing_and_raise_nothing():
    """Bytes changed, cut out, doubled: each connection ends or answers, and every exchange is over (the fixture asserts it)."""
    rng = random.Random(7)
    whole = b"POST /a?b HTTP/1.1\r\nhost: a\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: u\r\n\r\n"
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        for _ in range(150):
            place, length = rng.randrange(len(whole)), rng.choice([0, 1, 1, 5])
            damage = rng.choice([b"", b"\n", b"\r\n", b" ", b"\0", b"\xff", b"0", b":", whole[place : place + 20]])
            client = await proxy.connect()
            client.send(whole[:place] + damage + whole[place + length :])
            client.writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                answer = await client.rest()
                assert not answer or answer.startswith(b"HTTP/1.1 ")
        assert (await proxy.ask()).status == 200
