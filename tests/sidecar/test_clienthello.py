"""ClientHellos as OpenSSL writes them, cut anywhere; noise is told apart."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmesh.sidecar.clienthello import ClientHello, NotTls, read_client_hello


def hello(server_name: str | None = "reviews.default", alpn: tuple[str, ...] = ("istio-http/1.1", "istio")) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=server_name).do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same handshake message over several TLS records."""
    body = data[5:]
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(data[:3] + len(part).to_bytes(2, "big") + part for part in parts)


HELLO = hello()


@pytest.mark.parametrize(("name", "alpn"), [("Reviews.Default", ("h2", "http/1.1")), ("a.b", ()), (None, ("istio",)), (None, ())])
def test_server_name_and_alpn_are_read(name, alpn):
    assert read_client_hello(hello(name, alpn)) == ClientHello((name or "").lower(), alpn)


@pytest.mark.parametrize("size", [1, 7, 100, 16_384])
def test_a_hello_over_several_records_is_one(size):
    assert read_client_hello(in_records(HELLO, size)) == read_client_hello(HELLO)


def test_every_beginning_is_incomplete():
    assert [read_client_hello(HELLO[:length]) for length in range(len(HELLO))] == [None] * len(HELLO)


def test_bytes_behind_it_do_not_matter():
    assert read_client_hello(HELLO + b"anything") == read_client_hello(HELLO)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x02\x00\x00\x05hello",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x15\x03\x01\x00\x02\x01\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ],
)
def test_what_is_no_hello_is_not_tls(data):
    with pytest.raises(NotTls):
        read_client_hello(data)


@given(place=st.integers(5, len(HELLO) - 1), byte=st.integers(0, 255), noise=st.binary(max_size=60))
def test_no_bytes_make_it_raise_anything_else(place, byte, noise):
    for data in (HELLO[:place] + bytes((byte,)) + HELLO[place + 1 :], b"\x16\x03\x01" + noise, noise):
        try:
            read_client_hello(data)
        except NotTls:
            pass


def test_a_hello_that_never_ends_is_given_up():
    endless = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"a" * 16_380
    with pytest.raises(NotTls):
        read_client_hello(endless + (b"\x16\x03\x01\x40\x00" + b"a" * 16_384) * 5)
