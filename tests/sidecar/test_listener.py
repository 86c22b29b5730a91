"""From first bytes to a filter chain."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmesh.sidecar.clienthello import ClientHello
from devmesh.sidecar.listener import First, inspect, select_chain
from tests.sidecar import snapshots
from tests.sidecar.sidecars import answering, app, one_route, sidecar
from tests.sidecar.test_clienthello import HELLO

HTTP1, H2C, RAW = First(protocol="http/1.1"), First(protocol="h2c"), First()
ISTIO = First(tls=ClientHello("outbound_.80_._.a.b", ("istio-http/1.1", "istio")))
OTHER = First(tls=ClientHello("www.example.org", ("h2",)))
INSPECTORS = [{"name": "envoy.filters.listener.tls_inspector"}, {"name": "envoy.filters.listener.http_inspector"}]


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (b"GET / HTTP/1.1\r\n", HTTP1),
        (b"OPTIONS * ", HTTP1),
        (b"PURGE / HTTP/1.1\r\nhost", HTTP1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", H2C),
        (b"PRI ", H2C),
        (b"G", None),
        (b"PATC", None),
        (b"PR", None),
        (b"*3\r\n$3\r\nSET\r\n", RAW),
        (b"\x00\x00\x00\x01", RAW),
        (b"hello world", RAW),
        (b"\x16\x03", None),
        (b"\x16\x02\x00\x00\x05hello", RAW),
    ],
)
def test_first_bytes_say_the_protocol(data, first):
    assert inspect(data) == first


def test_a_client_hello_is_read():
    found = inspect(HELLO)
    assert found is not None
    assert found.tls == ClientHello("reviews.default", ("istio-http/1.1", "istio"))


@given(st.binary(min_size=1, max_size=60))
def test_no_first_bytes_raise(data):
    inspect(data)


def chain(name: str, **match):
    return {**snapshots.http_chain(), "name": name, "filter_chain_match": match}


def chosen(first: First, *chains, port: int = 80, **fields) -> str:
    listener = snapshots.parsed(listeners=[snapshots.listener(*chains, **fields)]).listeners["l"]
    found = select_chain(listener, port, first)
    return found.name if found is not None else ""


@pytest.mark.parametrize(
    ("first", "port", "name"),
    [
        (ISTIO, 80, "80-tls"),
        (ISTIO, 81, "tls-istio"),
        (OTHER, 80, "80-tls"),
        (OTHER, 81, "tls"),
        (HTTP1, 80, "80-raw"),
        (HTTP1, 81, "raw-http"),
        (H2C, 81, "raw-http"),
        (RAW, 81, "raw"),
        (RAW, 80, "80-raw"),
    ],
)
def test_the_most_specific_chain_is_taken(first, port, name):
    chains = [
        chain("raw", transport_protocol="raw_buffer"),
        chain("raw-http", transport_protocol="raw_buffer", application_protocols=["http/1.1", "h2c"]),
        chain("tls", transport_protocol="tls"),
        chain("tls-istio", transport_protocol="tls", application_protocols=["istio", "istio-http/1.1"]),
        chain("80-tls", destination_port=80, transport_protocol="tls"),
        chain("80-raw", destination_port=80, transport_protocol="raw_buffer"),
    ]
    assert chosen(first, *chains, port=port) == name
    assert chosen(first, *reversed(chains), port=port) == name


@pytest.mark.parametrize(
    ("server_name", "name"),
    [
        ("a.example.org", "exact"),
        ("b.example.org", "short"),
        ("x.b.example.org", "long"),
        ("example.org", "none"),
        ("", "none"),
        ("y.a.example.org", "short"),
    ],
)
def test_server_names_match_exactly_then_by_the_longest_suffix(server_name, name):
    chains = [
        chain("none"),
        chain("short", server_names=["*.example.org"]),
        chain("long", server_names=["*.b.example.org"]),
        chain("exact", server_names=["a.example.org"]),
    ]
    assert chosen(First(tls=ClientHello(server_name)), *chains) == name


def test_without_a_match_the_default_chain_is_taken_or_none():
    strict = chain("tls", transport_protocol="tls")
    assert chosen(HTTP1, strict) == ""
    assert chosen(HTTP1, strict, default_filter_chain=chain("default")) == "default"


async def test_a_head_in_pieces_is_inspected_and_served():
    async with app(answering()) as ours:
        snapshot = one_route(ours.port)
        snapshot["listeners"][0]["listener_filters"] = INSPECTORS
        async with sidecar(snapshot) as proxy:
            client = await proxy.connect()
            for piece in (b"G", b"ET", b" / HTTP/1.1\r\nho", b"st: a\r\n\r\n"):
                client.send(piece)
                await client.writer.drain()
                await asyncio.sleep(0.01)
            assert (await client.answer()).body == b"ok"


async def test_a_silent_client_is_closed_or_goes_on_when_the_inspectors_give_up():
    async with app(answering()) as ours:
        for goes_on in (False, True):
            snapshot = one_route(ours.port)
            snapshot["listeners"][0] |= {
                "listener_filters": INSPECTORS,
                "listener_filters_timeout": "0.05s",
                "continue_on_listener_filters_timeout": goes_on,
            }
            async with sidecar(snapshot) as proxy:
                client = await proxy.connect()
                if goes_on:
                    await asyncio.sleep(0.1)
                    assert (await client.ask()).status == 200
                else:
                    assert await client.closed()


async def test_without_a_configuration_nobody_is_let_in():
    async with sidecar({}) as proxy:
        assert await (await proxy.connect()).closed()


async def test_a_connection_that_no_chain_takes_is_closed():
    snapshot = one_route(1)
    snapshot["listeners"][0]["filter_chains"][0]["filter_chain_match"] = {"transport_protocol": "tls"}
    async with sidecar(snapshot) as proxy:
        client = await proxy.connect()
        client.get()
        assert await client.closed()


async def test_an_old_connection_meets_the_configuration_in_force_or_has_to_go():
    async with app(answering()) as ours, sidecar(one_route(ours.port)) as proxy:
        client = await proxy.connect()
        assert (await client.ask()).status == 200
        proxy.proxy.apply(
            snapshots.parsed(
                **one_route(ours.port, action={"prefix_rewrite": "/new"}),
            )
        )
        assert (await client.ask()).status == 200
        strict = one_route(ours.port)
        strict["listeners"][0]["filter_chains"][0]["filter_chain_match"] = {"transport_protocol": "tls"}
        proxy.proxy.apply(snapshots.parsed(**strict))
        client.get()
        assert await client.closed()
