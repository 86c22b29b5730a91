"""Pools: who waits is served, whatever the cluster's other endpoints hold; the dial table is for our own app."""

import asyncio
import contextlib
import random
import socket
import time

import pytest
import pytest_asyncio

from devmesh.sidecar import upstream
from devmesh.sidecar.config import CircuitBreakers, Cluster, Endpoint
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.tls import Contexts
from devmesh.sidecar.upstream import Caller, Target, Upstreams

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Attempt(Caller):
    """A caller that asks as soon as it is connected and keeps what it is told."""

    def __init__(self):
        self.connection, self.ended, self.failure = None, asyncio.Event(), ""
        self.started = asyncio.Event()

    def connected(self, connection):
        self.connection = connection
        connection.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.request_sent = True
        self.started.set()

    def response_head(self, head, body):
        pass

    def response_data(self, data):
        pass

    def response_end(self):
        self.ended.set()

    def failed(self, failure, details):
        self.failure = details
        self.ended.set()


class Server:
    """Answers a request when `answer` is set."""

    def __init__(self):
        self.answer, self.requests = asyncio.Event(), 0

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await self.answer.wait()
                writer.write(OK)
                await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def servers():
    both = [Server(), Server()]
    async with contextlib.AsyncExitStack() as stack:
        listening = [await stack.enter_async_context(await asyncio.start_server(one.serve, "127.0.0.1", 0)) for one in both]
        yield both, [Endpoint("127.0.0.1", one.sockets[0].getsockname()[1]) for one in listening]
        for one in both:
            one.answer.set()


def upstreams(dial=None, dialer=None):
    return Upstreams(Contexts(None, lambda _: None), dial or {}, time.monotonic, random.Random(1), dialer)


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
async def test_who_waits_gets_a_connection_when_another_endpoint_holds_all_that_the_cluster_may_have(servers):
    (held, other), endpoints = servers
    breakers = CircuitBreakers(max_connections=1, max_pending_requests=1)
    cluster = Cluster("c", "EDS", "RANDOM", tuple(endpoints), breakers=breakers, max_requests_per_connection=1)
    ours = upstreams()
    first, second, third = Attempt(), Attempt(), Attempt()
    assert ours.pool(Target(cluster, endpoints[0], None)).acquire(first, b"GET")
    await asyncio.wait_for(first.started.wait(), 5)
    pool = ours.pool(Target(cluster, endpoints[1], None))
    assert pool.acquire(second, b"GET")
    await asyncio.wait_for(second.started.wait(), 5)
    assert pool.acquire(third, b"GET")
    assert not pool.acquire(Attempt(), b"GET")
    other.answer.set()
    await asyncio.wait_for(third.ended.wait(), 5)
    assert (third.failure, other.requests) == ("", 2)
    held.answer.set()
    await asyncio.wait_for(first.ended.wait(), 5)


async def test_the_dial_table_leads_to_the_app_and_a_call_to_ones_own_service_to_the_inbound_listener(servers):
    _, (inbound, app) = servers
    ours = upstreams({f"{inbound.address}:{inbound.port}": (app.address, app.port)})
    own_app = Target(Cluster("inbound|9080||", "ORIGINAL_DST", "CLUSTER_PROVIDED", ()), inbound, None)
    own_service = Target(Cluster("outbound|9080||x", "EDS", "RANDOM", (inbound,)), inbound, None)
    assert ours.address_of(own_app) == (app.address, app.port)
    assert ours.address_of(own_service) == (inbound.address, inbound.port)


PASSTHROUGH = Cluster("PassthroughCluster", "ORIGINAL_DST", "CLUSTER_PROVIDED", ())
SEVERAL_NAMES = Cluster("c", "EDS", "RANDOM", (), auto_sni=True)
FIXED = Cluster("c", "EDS", "RANDOM", ())


async def used(ours, cluster, endpoint, server, authority=b"a"):
    """One request whose answer ends its connection."""
    attempt = Attempt()
    pool = ours.http_pool(cluster, endpoint, authority)
    assert pool.acquire(attempt, b"GET")
    server.answer.set()
    await asyncio.wait_for(attempt.ended.wait(), 5)
    for connection in list(pool.open):
        connection.abandon()
    return pool


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
@pytest.mark.parametrize(("cluster", "kept"), [(PASSTHROUGH, 0), (SEVERAL_NAMES, 0), (FIXED, 1)], ids=["any address", "any name", "fixed"])
async def test_pools_of_addresses_that_callers_choose_are_forgotten_with_their_last_connection(servers, cluster, kept):
    (server, _), (endpoint, _) = servers
    ours = upstreams()
    pool = await used(ours, cluster, endpoint, server)
    assert len(ours._pools) == len(ours._http_pools[cluster.name][1]) == kept
    assert (ours.http_pool(cluster, endpoint, b"a") is pool) is bool(kept)
    assert not pool.load.connections


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
async def test_a_destination_that_refuses_or_is_given_up_is_forgotten_too(servers):
    _, (endpoint, _) = servers
    ours = upstreams()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        attempt = Attempt()
        assert ours.http_pool(PASSTHROUGH, Endpoint("127.0.0.1", nobody.getsockname()[1])).acquire(attempt, b"GET")
        await asyncio.wait_for(attempt.ended.wait(), 5)
    assert not ours._pools
    impatient = Attempt()
    pool = ours.http_pool(PASSTHROUGH, endpoint)
    assert pool.acquire(impatient, b"GET")
    pool.forget(impatient)
    assert ours._pools  # its connection is being made
    await ours.close()
    assert not pool.load.pending


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
async def test_whoever_watches_the_app_is_told_of_a_connection_that_failed():
    missed, dialer = [], Dialer()
    dialer.missed = lambda host, port: missed.append((host, port))
    ours = upstreams(dialer=dialer)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = Endpoint(*nobody.getsockname())
        attempt = Attempt()
        assert ours.http_pool(PASSTHROUGH, endpoint).acquire(attempt, b"GET")
        await asyncio.wait_for(attempt.ended.wait(), 5)
    assert missed == [(endpoint.address, endpoint.port)]


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
async def test_an_endpoint_that_is_gone_keeps_no_connection_and_lets_what_is_under_way_end(servers):
    (server, _), endpoints = servers
    cluster = Cluster("c", "EDS", "RANDOM", tuple(endpoints))
    ours = upstreams()
    ours.configure({"c": cluster})
    attempt = Attempt()
    pool = ours.http_pool(cluster, endpoints[0])
    assert pool.acquire(attempt, b"GET")
    await asyncio.wait_for(attempt.started.wait(), 5)
    fewer = Cluster("c", "EDS", "RANDOM", (endpoints[1],))
    ours.configure({"c": fewer})
    assert not ours._pools
    server.answer.set()
    await asyncio.wait_for(attempt.ended.wait(), 5)
    assert attempt.failure == ""
    assert (pool.idle, pool.open, ours.load("c").connections) == ([], set(), 0)
