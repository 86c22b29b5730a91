"""Proxy requests: absolute form and CONNECT, names of the mesh and of the outside, what may not be reached."""

from __future__ import annotations

import asyncio

import pytest

from devmesh.sidecar.http1.request import to_origin_form
from devmesh.sidecar.message import RequestHead, get_header
from devmesh.sidecar.outbound import destination, forbidden
from devmesh.sidecar.record import Flag
from tests.sidecar import snapshots
from tests.sidecar.sidecars import OK, answering, app, sidecar
from tests.support.waiting import until

NAMES = {"table": {"reviews.default.svc.cluster.local": {"ips": ["240.0.0.1"], "shortname": "reviews", "namespace": "default"}}}


def mesh(port: int, **chain):
    """`reviews:80` is the app; everything else goes to where it was meant for."""
    table = snapshots.table(snapshots.host(snapshots.route(), domains=("reviews", "reviews:80", "reviews.default.svc.cluster.local")))
    passing = {
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {"stat_prefix": "p", "cluster": "PassthroughCluster"}}]
    }
    return {
        "listeners": [
            snapshots.listener({**snapshots.http_chain(route_config=table, **chain)}, name="240.0.0.1_80"),
            snapshots.listener(passing, name="virtualOutbound"),
        ],
        "clusters": [
            snapshots.cluster("c", (("127.0.0.1", port),)),
            {"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"},
        ],
        "names": [NAMES],
    }


def outbound(snapshot, **options):
    return sidecar(snapshot, role="outbound", **options)


@pytest.mark.parametrize(
    ("target", "expected", "origin", "authority"),
    [
        ("http://reviews/", ("reviews", 80), "/", "reviews"),
        ("http://reviews", ("reviews", 80), "/", "reviews"),
        ("http://Reviews:9080/a?b=c", ("reviews", 9080), "/a?b=c", "Reviews:9080"),
        ("HTTP://reviews/a", ("reviews", 80), "/a", "reviews"),
        ("http://user:pw@reviews:1/", ("reviews", 1), "/", "reviews:1"),
        ("http://[::1]:80/x", ("::1", 80), "/x", "[::1]:80"),
    ],
)
def test_the_target_names_the_destination_and_the_host(target, expected, origin, authority):
    head = RequestHead(b"GET", target.encode(), b"other", [(b"host", b"other")])
    assert destination(head, to_origin_form(head)) == expected
    assert (head.target.decode(), head.authority.decode(), get_header(head.headers, b"host")) == (origin, authority, authority.encode())


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/"), ("OPTIONS", "*"), ("GET", "https://a/"), ("CONNECT", "a"), ("CONNECT", ":80"), ("CONNECT", "a:65536"), ("CONNECT", "a:\xb2")],
)  # fmt: skip
def test_what_names_no_destination_is_none(method, target):
    head = RequestHead(method.encode(), target.encode("latin-1"), b"a", [(b"host", b"a")])
    assert destination(head, to_origin_form(head)) is None


@pytest.mark.parametrize(
    ("ip", "is_forbidden"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("10.0.0.1", False),
        ("240.0.0.1", False),
        ("2001:db8::1", False),
    ],
)
def test_this_machine_is_not_the_outside(ip, is_forbidden):
    assert forbidden(ip) is is_forbidden


@pytest.mark.parametrize("host", ["reviews", "reviews:80", "reviews.default.svc.cluster.local", "REVIEWS"])
async def test_a_name_of_the_mesh_goes_to_its_listener(host):
    seen = []
    async with app(answering(OK, seen)) as ours, outbound(mesh(ours.port)) as proxy:
        client = await proxy.connect()
        for _ in range(2):
            client.send(f"GET http://{host}/a?b HTTP/1.1\r\nhost: elsewhere\r\n\r\n".encode())
            assert (await client.answer()).body == b"ok"
        assert seen[0][0] == "GET /a?b HTTP/1.1"
        assert seen[0][1]["host"] == host
        assert ours.connections == 1


async def test_connect_makes_the_connection_one_to_that_place():
    seen = []
    async with app(answering(OK, seen)) as ours, outbound(mesh(ours.port)) as proxy:
        client = await proxy.connect()
        client.send(b"CONNECT reviews:80 HTTP/1.1\r\nhost: reviews:80\r\n\r\nGET /early HTTP/1.1\r\nhost: reviews\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).body == b"ok"
        assert (await client.ask("/late", "x: y")).status == 404  # its own host header now decides: `a` is nobody here
        client.send(b"GET /again HTTP/1.1\r\nhost: reviews\r\n\r\n")
        assert (await client.answer()).body == b"ok"
        assert [line for line, _, _ in seen] == ["GET /early HTTP/1.1", "GET /again HTTP/1.1"]


async def test_bytes_right_behind_a_connect_reach_a_tcp_destination_once():
    received = asyncio.get_running_loop().create_future()

    async def handler(reader, writer):
        received.set_result(await reader.readexactly(10))
        writer.write(b"hello")

    async with app(handler) as ours:
        dial = {f"240.0.0.9:{ours.port}": ("127.0.0.1", ours.port)}
        async with outbound(mesh(1), dial=dial) as proxy:
            client = await proxy.connect()
            client.send(b"CONNECT 240.0.0.9:%d HTTP/1.1\r\nhost: a\r\n\r\n01234" % ours.port)
            assert (await client.answer()).status == 200
            client.send(b"56789")
            assert await client.rest() == b"hello"
            assert (await received, ours.connections) == (b"0123456789", 1)


async def test_an_ordinary_request_to_the_proxy_port_is_told_what_to_do():
    async with outbound(mesh(1)) as proxy:
        answer = await proxy.ask("/")
        assert (answer.status, b"this is a proxy port" in answer.body, answer["connection"]) == (400, True, "close")


@pytest.mark.parametrize("host", ["127.0.0.1:22", "localhost", "169.254.169.254", "0.0.0.0:80", "[::1]:80"])
async def test_loopback_and_link_local_are_not_reached_through_the_proxy(host):
    async with outbound(mesh(1)) as proxy:
        for request in (f"GET http://{host}/ HTTP/1.1", f"CONNECT {host if ':' in host.rpartition(']')[2] else host + ':80'} HTTP/1.1"):
            client = await proxy.connect()
            client.send(f"{request}\r\nhost: a\r\n\r\n".encode())
            answer = await client.answer()
            assert (answer.status, b"not reached" in answer.body) == (403, True)
            assert (await proxy.records.next()).details == "forbidden_destination"


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".invalid", ".."])
async def test_an_unknown_name_is_a_502(host):
    async with outbound(mesh(1)) as proxy:
        client = await proxy.connect()
        client.send(f"GET http://{host}/ HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        assert (await client.answer()).status == 502
        client = await proxy.connect()
        client.send(f"CONNECT {host}:99999999999 HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        assert (await client.answer()).status == 400


class Lookup:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, host, port, **_):
        self.asked.set()
        await self.go.wait()
        return [(2, 1, 6, "", ("240.0.0.1", port))]


async def test_what_comes_during_a_lookup_belongs_to_the_request_that_waits(monkeypatch):
    """A body that arrives meanwhile is no request, and a pipelined request waits its turn."""
    lookup, seen = Lookup(), []
    async with app(answering(OK, seen)) as ours:
        snapshot = mesh(ours.port)
        snapshot["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"] = snapshots.table()
        async with outbound(snapshot) as proxy:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
            client = await proxy.connect()
            inner = b"GET http://reviews/smuggled HTTP/1.1\r\nhost: reviews\r\n\r\n"
            client.send(b"POST http://outside.test/ HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(inner))
            await asyncio.wait_for(lookup.asked.wait(), 60)
            client.send(inner + b"GET http://reviews/second HTTP/1.1\r\nhost: reviews\r\n\r\n")
            (connection,) = proxy.proxy.connections
            await until(lambda: len(connection._buffer) > len(inner))
            lookup.go.set()
            assert [(await client.answer()).status for _ in range(2)] == [200, 200]
            assert [(line.split(" ")[1], body) for line, _, body in seen] == [("/", inner), ("/second", b"")]


async def test_a_client_that_leaves_during_a_lookup_reaches_nobody(monkeypatch):
    lookup = Lookup()
    async with app(answering()) as ours, outbound(mesh(ours.port)) as proxy:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        client = await proxy.connect()
        client.send(b"GET http://outside.test/ HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(lookup.asked.wait(), 60)
        client.leave()
        await until(lambda: not proxy.proxy.connections)
        lookup.go.set()
        await until(lambda: not proxy.proxy.proxy_requests()._tasks)
        assert (ours.connections, proxy.records.empty) == (0, True)


async def test_what_allow_any_lets_through_goes_to_the_address_it_named():
    async with app(answering()) as ours:
        dial = {f"240.0.0.9:{ours.port}": ("127.0.0.1", ours.port)}
        async with outbound(mesh(1), dial=dial) as proxy:
            client = await proxy.connect()
            client.send(f"GET http://240.0.0.9:{ours.port}/ HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            assert (await client.answer()).body == b"ok"
            record = await proxy.records.next()
            assert (record.upstream_cluster, record.upstream_host) == ("PassthroughCluster", f"240.0.0.9:{ours.port}")


async def test_registry_only_answers_502_to_the_outside():
    snapshot = mesh(1)
    black_hole = {
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {"stat_prefix": "b", "cluster": "BlackHoleCluster"}}]
    }
    snapshot["listeners"][1]["filter_chains"] = [black_hole]
    snapshot["clusters"].append({"name": "BlackHoleCluster", "type": "STATIC"})
    async with outbound(snapshot) as proxy:
        client = await proxy.connect()
        client.send(b"GET http://240.0.0.9/ HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.answer()).status == 502
        assert (await proxy.records.next()).flags == Flag.NONE
        client = await proxy.connect()
        client.send(b"CONNECT 240.0.0.9:443 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.answer()).status == 200
        assert await client.closed()


async def test_a_host_of_a_service_entry_is_known_by_its_name_though_no_resolver_knows_it():
    cluster = "outbound|8000||ext.invalid"
    async with app(answering(OK)) as ours:
        table = snapshots.table(snapshots.host(snapshots.route(route={"cluster": cluster}), domains=("ext.invalid",)))
        chain = snapshots.http_chain(route_config={**table, "ignore_port_in_host_matching": True})
        listeners = [snapshots.listener(chain, name="0.0.0.0_8000")]
        async with outbound({"listeners": listeners, "clusters": [snapshots.cluster(cluster, (("127.0.0.1", ours.port),))]}) as proxy:
            assert (await proxy.ask("http://ext.invalid:8000/")).status == 200
            assert (await proxy.ask("http://ext.invalid:8001/")).status == 502
