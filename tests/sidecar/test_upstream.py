"""Upstreams: pools that are found again, kept and forgotten; the dial table is for our own app."""

import asyncio
import socket

import pytest

from devmesh.sidecar import upstream
from devmesh.sidecar.config import Cluster, Endpoint
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.target import Target
from tests.sidecar.upstreams import Attempt, servers, upstreams

__all__ = ["servers"]


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
    await asyncio.wait_for(attempt.ended.wait(), 60)
    for connection in list(pool.open):
        connection.abandon()
    return pool


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
@pytest.mark.parametrize(("cluster", "kept"), [(PASSTHROUGH, 0), (SEVERAL_NAMES, 0), (FIXED, 1)], ids=["any address", "any name", "fixed"])
async def test_pools_of_addresses_that_callers_choose_are_forgotten_with_their_last_connection(servers, cluster, kept):
    (server, _), (endpoint, _) = servers
    ours = upstreams()
    pool = await used(ours, cluster, endpoint, server)
    assert len(ours._pools) == len(ours._http_pools[cluster.name].by_address) == kept
    assert len(ours._active) == kept, "nor are its requests under way counted for ever"
    assert (ours.http_pool(cluster, endpoint, b"a") is pool) is bool(kept)
    assert not pool.load.connections


def test_an_endpoint_has_one_pool_whichever_object_names_it_and_its_requests_are_counted_for_all_clusters():
    ours = upstreams()
    first, again = Endpoint("192.0.2.1", 80), Endpoint("192.0.2.1", 80)
    pool = ours.http_pool(FIXED, first)
    assert ours.http_pool(FIXED, again) is ours.http_pool(FIXED, first) is pool
    other = ours.http_pool(Cluster("d", "EDS", "RANDOM", ()), first)
    assert other is not pool
    other.active.requests += 1
    assert ours.active("192.0.2.1:80") == pool.active.requests == 1
    assert ours.active("192.0.2.2:80") == 0


def test_a_pool_that_a_new_configuration_takes_away_leaves_the_count_to_the_pools_that_stay():
    ours = upstreams()
    endpoint = Endpoint("192.0.2.1", 80)
    clusters = [Cluster(name, "EDS", "RANDOM", (endpoint,)) for name in ("c", "d")]
    for cluster in clusters:
        ours.http_pool(cluster, endpoint)
    ours.configure({"d": clusters[1]})
    assert list(ours._active) == ["192.0.2.1:80"]
    ours.configure({})
    assert not ours._active


@pytest.mark.skipif(not upstream.__file__.endswith(".py"), reason="a test's own caller cannot be below a compiled class")
async def test_a_destination_that_refuses_or_is_given_up_is_forgotten_too(servers):
    _, (endpoint, _) = servers
    ours = upstreams()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        attempt = Attempt()
        assert ours.http_pool(PASSTHROUGH, Endpoint("127.0.0.1", nobody.getsockname()[1])).acquire(attempt, b"GET")
        await asyncio.wait_for(attempt.ended.wait(), 60)
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
        await asyncio.wait_for(attempt.ended.wait(), 60)
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
    await asyncio.wait_for(attempt.started.wait(), 60)
    fewer = Cluster("c", "EDS", "RANDOM", (endpoints[1],))
    ours.configure({"c": fewer})
    assert not ours._pools
    server.answer.set()
    await asyncio.wait_for(attempt.ended.wait(), 60)
    assert attempt.failure == ""
    assert (pool.idle, pool.open, ours.load("c").connections) == ([], set(), 0)
