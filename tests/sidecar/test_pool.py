"""A pool: who waits is served, whatever the cluster's other endpoints hold."""

import asyncio

import pytest

from devmesh.sidecar import pool as pools
from devmesh.sidecar.config import CircuitBreakers, Cluster
from devmesh.sidecar.target import Target
from tests.sidecar.upstreams import Attempt, servers, upstreams

__all__ = ["servers"]
interpreted = pytest.mark.skipif(not pools.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")


@interpreted
async def test_who_waits_gets_a_connection_when_another_endpoint_holds_all_that_the_cluster_may_have(servers):
    (held, other), endpoints = servers
    breakers = CircuitBreakers(max_connections=1, max_pending_requests=1)
    cluster = Cluster("c", "EDS", "RANDOM", tuple(endpoints), breakers=breakers, max_requests_per_connection=1)
    ours = upstreams()
    first, second, third = Attempt(), Attempt(), Attempt()
    assert ours.pool(Target(cluster, endpoints[0], None)).acquire(first, b"GET")
    await asyncio.wait_for(first.started.wait(), 60)
    pool = ours.pool(Target(cluster, endpoints[1], None))
    assert pool.acquire(second, b"GET")
    await asyncio.wait_for(second.started.wait(), 60)
    assert pool.acquire(third, b"GET")
    assert not pool.acquire(Attempt(), b"GET")
    other.answer.set()
    await asyncio.wait_for(third.ended.wait(), 60)
    assert (third.failure, other.requests) == ("", 2)
    held.answer.set()
    await asyncio.wait_for(first.ended.wait(), 60)


@interpreted
async def test_who_was_refused_a_connection_does_not_keep_the_next_one_from_getting_it(servers):
    (server, _), (endpoint, _) = servers
    server.answer.set()
    ours = upstreams()
    pool = ours.pool(Target(Cluster("c", "EDS", "RANDOM", (endpoint,), breakers=CircuitBreakers(max_requests=1)), endpoint, None))
    first, refused, later = Attempt(), Attempt(), Attempt()
    assert pool.acquire(first, b"GET")
    await asyncio.wait_for(first.started.wait(), 60)
    assert not pool.acquire(refused, b"GET")
    assert pool.load.overflows == 1
    await asyncio.wait_for(first.ended.wait(), 60)
    assert pool.acquire(later, b"GET")
    await asyncio.wait_for(later.ended.wait(), 60)
    assert first.connection is later.connection
    await ours.close()
