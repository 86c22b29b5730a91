"""TCP through an HTTP proxy: what that is asked, and what passes after its answer. Each row was asked of Envoy 1.40."""

import asyncio

import pytest

from devmesh.sidecar.record import Flag
from tests.sidecar import snapshots
from tests.sidecar.sidecars import app, sidecar
from tests.sidecar.test_tcp import tcp
from tests.support.virtual_time import in_virtual_time

ASKED = b"CONNECT db.example.com:5432 HTTP/1.1\r\nhost: db.example.com:5432\r\n\r\n"


def tunnel(port):
    return tcp(port, tunneling_config={"hostname": "db.example.com:5432"})


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
@pytest.mark.parametrize("pieces", [1, 3])
async def test_after_a_2xx_all_bytes_pass_both_ways_and_the_early_ones_wait_for_it(answer, pieces):
    asked = []

    async def proxy_server(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        whole = answer + b"first"
        size = -(-len(whole) // pieces)
        for start in range(0, len(whole), size):
            writer.write(whole[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        asked.append(await reader.readexactly(4))
        writer.write(await reader.read())

    async with app(proxy_server) as ours, sidecar(tunnel(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"data")
        assert await client.reader.readexactly(5) == b"first"
        client.send(b"more")
        client.writer.write_eof()
        assert await client.rest() == b"more"
        assert asked == [ASKED, b"data"]
        assert (await proxy.records.next()).flags == Flag.NONE


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", "tunnel_response:403"),
        (b"", ""),
        (b"no HTTP\r\n\r\n", "protocol_error"),
    ],
)
async def test_whatever_else_is_answered_ends_the_clients_connection(answer, why):
    async def proxy_server(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with app(proxy_server) as ours, sidecar(tunnel(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"data")
        assert await client.closed()
        record = await proxy.records.next()
        assert (record.flags, record.transport_failure) == (Flag.UF | Flag.URX, why)


@in_virtual_time
async def test_a_proxy_that_says_nothing_is_given_up_with_the_idle_timeout():
    gone = asyncio.Event()

    async def proxy_server(reader, _):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.set()

    limited = {"tunneling_config": {"hostname": "a:1"}, "idle_timeout": "2s"}
    async with app(proxy_server) as ours, sidecar(tcp(ours.port, **limited)) as proxy:
        client = await proxy.connect()
        assert await client.closed()
        await asyncio.wait_for(gone.wait(), 5)


@pytest.mark.parametrize(
    ("config", "problem"),
    [({"hostname": "a:1", "use_post": True}, "use_post is not supported"), ({"hostname": "%REQUESTED_SERVER_NAME%:1"}, "with a command")],
)
def test_tunnels_of_other_kinds_are_refused(config, problem):
    assert problem in snapshots.refusal(**tcp(1, tunneling_config=config))
