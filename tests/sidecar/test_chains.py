"""From first bytes to a filter chain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmesh.sidecar.chains import First, inspect, select_chain
from devmesh.sidecar.clienthello import ClientHello
from tests.sidecar import snapshots
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


def chosen(first: First, *chains, port: int = 80, ip: str = "10.0.0.1", **fields) -> str:
    listener = snapshots.parsed(listeners=[snapshots.listener(*chains, **{"listener_filters": INSPECTORS, **fields})]).listeners["l"]
    found = select_chain(listener, (ip, port), first)
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


def test_a_strict_port_of_a_permissive_workload_is_not_entered_by_the_chain_for_other_ports():
    chains = [
        chain("any-tls", transport_protocol="tls"),
        chain("any-raw", transport_protocol="raw_buffer"),
        chain("80-tls", destination_port=80, transport_protocol="tls"),
    ]
    assert chosen(HTTP1, *chains, port=80) == ""
    assert chosen(ISTIO, *chains, port=80) == "80-tls"
    assert chosen(HTTP1, *chains, port=81) == "any-raw"


def test_a_chain_with_the_server_name_is_not_replaced_by_one_without_when_the_protocol_differs():
    chains = [chain("named", server_names=["www.example.org"], application_protocols=["http/1.1"]), chain("any")]
    assert chosen(OTHER, *chains) == ""


def test_application_protocols_count_in_the_clients_order():
    chains = [chain("istio", application_protocols=["istio"]), chain("http", application_protocols=["istio-http/1.1"])]
    assert chosen(ISTIO, *chains) == "http"


def off(inspector: str, start: int, end: int):
    disabled = {"destination_port_range": {"start": start, "end": end}}
    return {"name": f"envoy.filters.listener.{inspector}", "filter_disabled": disabled}


@pytest.mark.parametrize(
    ("first", "inspectors", "name"),
    [
        (ISTIO, [], "raw"),
        (ISTIO, [off("tls_inspector", 80, 81)], "raw"),
        (ISTIO, [off("tls_inspector", 81, 82)], "tls"),
        (HTTP1, [off("http_inspector", 80, 81)], "raw"),
        (HTTP1, [off("http_inspector", 81, 82)], "http"),
        (ISTIO, [off("http_inspector", 81, 82)], "raw"),
    ],
)
def test_what_no_inspector_looks_for_on_a_port_is_not_seen_there(first, inspectors, name):
    chains = [
        chain("raw", transport_protocol="raw_buffer"),
        chain("http", transport_protocol="raw_buffer", application_protocols=["http/1.1"]),
    ]
    if any(one["name"].endswith("tls_inspector") for one in inspectors):
        chains.append(chain("tls", transport_protocol="tls"))
    assert chosen(first, *chains, listener_filters=inspectors) == name


def test_a_chain_that_only_tls_can_match_brings_the_inspector_with_it():
    assert chosen(ISTIO, chain("tls", transport_protocol="tls"), listener_filters=[]) == "tls"
    assert chosen(ISTIO, chain("named", server_names=["outbound_.80_._.a.b"]), listener_filters=[]) == "named"


def ranges(*networks):
    return [{"address_prefix": address, "prefix_len": int(bits)} for address, _, bits in (one.partition("/") for one in networks)]


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        ("10.77.1.2", "near"),
        ("10.78.1.2", "wide"),
        ("172.16.0.1", "wide"),
        ("192.0.2.1", "any"),
        ("2001:db8::5", "v6"),
        ("2001:db9::5", "any"),
    ],
)
def test_the_longest_range_of_the_destination_comes_before_what_is_asked_for(ip, name):
    chains = [
        chain("any"),
        chain("wide", prefix_ranges=ranges("10.0.0.0/8", "172.16.0.1/12")),
        chain("near", prefix_ranges=ranges("10.77.0.0/16")),
        chain("v6", prefix_ranges=ranges("2001:db8::/64")),
    ]
    assert chosen(RAW, *chains, ip=ip) == name


def test_a_range_whose_chains_ask_for_another_name_leaves_the_connection_to_the_default_chain():
    chains = [
        chain("here", prefix_ranges=ranges("10.0.0.0/8"), server_names=["a.example"]),
        chain("named", server_names=["www.example.org"]),
    ]
    fields = {"default_filter_chain": chain("default")}
    assert chosen(OTHER, *chains, ip="10.1.1.1", **fields) == "default"
    assert chosen(OTHER, *chains, ip="192.0.2.1", **fields) == "named"
