"""A connection to an endpoint: what its bytes mean to the caller, and whether it may serve another one."""

import pytest

from devmesh.sidecar import upstream_connection
from devmesh.sidecar.config import Cluster, Endpoint
from devmesh.sidecar.pool import Pool
from devmesh.sidecar.target import Target
from devmesh.sidecar.upstream_connection import Caller, UpstreamConnection
from tests.sidecar.upstreams import upstreams
from tests.support.scripted import Transport

pytestmark = pytest.mark.skipif(
    not upstream_connection.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class"
)
HERE = Endpoint("10.0.0.1", 80)


class Told(Caller):
    def __init__(self):
        self.heard = []

    def connected(self, connection):
        connection.request_sent = True

    def response_head(self, head, body):
        self.heard.append(head.status)

    def response_data(self, data):
        self.heard.append(data)

    def response_end(self):
        self.heard.append("end")

    def failed(self, failure, details):
        self.heard.append(details)


async def connected(method=b"GET"):
    """A pool with one connection that one caller uses."""
    pool = Pool(upstreams(), Target(Cluster("c", "EDS", "RANDOM", (HERE,)), HERE, None))
    caller, connection, transport = Told(), UpstreamConnection(pool), Transport()
    transport.protocol = connection
    connection.connection_made(transport)
    pool.waiting.append((caller, method))
    pool.load.pending, pool.load.connections, pool.connecting = 1, 1, 1
    pool.connected(connection)
    return pool, caller, transport


CONVERSATIONS = {
    "a whole answer": ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"], [200, b"ok", "end"], True),
    "an answer in pieces": ([b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 2\r\n\r\no", b"k"], [200, b"o", b"k", "end"], True),
    "1xx before it": ([b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 No\r\n\r\n"], [103, 204, "end"], True),
    "more than the answer": ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!"], [200, b"ok", "end"], False),
    "connection: close": ([b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"], [200, "end"], False),
    "a bare LF": ([b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"], ["protocol_error"], False),
    "a head without end": ([b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000], ["protocol_error"], False),
}


@pytest.mark.parametrize(("said", "heard", "kept"), CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_what_an_endpoint_says_reaches_the_caller_and_decides_whether_the_connection_is_kept(said, heard, kept):
    pool, caller, transport = await connected()
    for piece in said:
        await transport.say(piece)
    assert caller.heard == heard
    assert (len(pool.idle), bool(transport.ended)) == (int(kept), not kept)
    assert (pool.load.requests, pool.load.connections) == (0, int(kept))


async def test_an_answer_that_ends_with_its_connection_is_whole_and_another_one_is_cut_off():
    _, caller, transport = await connected()
    await transport.say(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    await transport.leave()
    assert caller.heard == [200, b"all of it", "end"]
    _, caller, transport = await connected()
    await transport.say(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf")
    await transport.leave()
    assert caller.heard == [200, b"half", "connection_termination"]


async def test_bytes_that_answer_nothing_end_an_idle_connection():
    pool, _, transport = await connected()
    await transport.say(b"HTTP/1.1 204 No\r\n\r\n")
    assert pool.idle
    await transport.say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert (pool.idle, pool.open, transport.ended) == ([], set(), "aborted")
