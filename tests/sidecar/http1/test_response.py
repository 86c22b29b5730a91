"""Response heads and the framing of their bodies (RFC 9112 sections 4 and 6.3, 9.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmesh.sidecar.http1.framing import ChunkedBody, CloseBody, FramingError, LengthBody, NoBody
from devmesh.sidecar.http1.response import KNOWN_FIELDS, _known_fields, parse_response, response_body
from devmesh.sidecar.message import ResponseHead


def response(*headers: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


@pytest.mark.parametrize(
    ("method", "status", "headers", "kind"),
    [
        (b"GET", 200, [(b"content-length", b"3")], LengthBody),
        (b"GET", 200, [(b"transfer-encoding", b"chunked")], ChunkedBody),
        (b"GET", 200, [(b"transfer-encoding", b"Chunked")], ChunkedBody),
        (b"GET", 200, [], CloseBody),
        (b"HEAD", 200, [(b"content-length", b"3")], NoBody),
        (b"HEAD", 200, [(b"transfer-encoding", b"chunked")], NoBody),
        (b"GET", 204, [(b"content-length", b"3")], NoBody),
        (b"GET", 304, [(b"content-length", b"3")], NoBody),
        (b"GET", 101, [], NoBody),
        (b"GET", 100, [], NoBody),
    ],
)
def test_the_framing_follows_method_status_and_headers(method, status, headers, kind):
    assert type(response_body(ResponseHead(status, headers), method)) is kind


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"3"), (b"content-length", b"4")],
        [(b"content-length", b"3"), (b"content-length", b"3")],
        [(b"content-length", b"3, 3")],
        [(b"content-length", b"+3")],
        [(b"content-length", b"")],
        [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"content-length", b"18446744073709551616")],
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_lengths_that_contradict_each_other_are_refused(headers, method):
    with pytest.raises(FramingError):
        response_body(ResponseHead(200, headers), method)


def test_a_coding_goes_on_as_everybody_writes_it_where_there_is_a_body():
    heads = [ResponseHead(status, [(b"transfer-encoding", b"Chunked")]) for status in (200, 304)]
    for head in heads:
        response_body(head, b"GET")
    assert [head.headers for head in heads] == [[(b"transfer-encoding", b"chunked")], []]
    with pytest.raises(FramingError):
        response_body(ResponseHead(204, [(b"transfer-encoding", b"chunked")]), b"GET")


@pytest.mark.parametrize(
    "raw",
    [
        response(line=b"HTTP/2 200 OK"),
        response(line=b"HTTP/1.1 2000 OK"),
        response(line=b"HTTP/1.1 099 OK"),
        response(line=b"http/1.1 200 OK"),
        response(line=b"HTTP/1.1  200 OK"),
        response(b"x : y"),
        response(b"x: y\nz: a"),
        response(b" x: y"),
        response(b"nothing"),
        response(b": y"),
        response(b"x: a\0b"),
        response(b"x: a\x01b"),
        response(b"x: a\x7fb"),
        response(b"x: a\rb"),
        response(b"x\n: a"),
        response(line=b"HTTP/1.1 200 OK\n"),
        response(line=b"HTTP/1.1 200 O\0K"),
        response(*[b"x: y"] * 101),
    ],
)
def test_a_malformed_head_is_refused(raw):
    with pytest.raises(FramingError):
        parse_response(raw)


@pytest.mark.parametrize(
    ("raw", "persists"),
    [
        (response(), True),
        (response(line=b"HTTP/1.0 200 OK"), False),
        (response(b"connection: keep-alive", line=b"HTTP/1.0 200 OK"), True),
        (response(b"Connection: Close"), False),
        (response(b"connection: x, close"), False),
        (response(b"connection: close", b"connection: keep-alive"), False),
        (response(b"connection: keep-alive", b"connection: close"), False),
    ],
)
def test_a_connection_persists_as_version_and_connection_header_say(raw, persists):
    assert parse_response(raw)[1] is persists


def test_a_head_is_read_with_and_without_a_reason():
    head, _ = parse_response(response(b"X-A:  b\t", b"x-a:", line=b"HTTP/1.1 418 I'm a teapot"))
    assert head == ResponseHead(418, [(b"x-a", b"b"), (b"x-a", b"")])
    assert parse_response(response(line=b"HTTP/1.1 200"))[0].status == 200
    assert parse_response(response(line=b"HTTP/1.1 200 "))[0].status == 200


@given(st.binary(max_size=80))
def test_no_bytes_make_it_raise_anything_but_its_refusal(noise):
    for data in (noise + b"\r\n\r\n", response(noise, b"content-length: " + noise)):
        try:
            head, _ = parse_response(data)
            response_body(head, b"GET")
        except FramingError:
            pass


def test_lines_that_come_again_are_read_as_before_however_many_there_were():
    def head(number):
        lines = [b"HTTP/1.1 200 OK", b"X-N: %d" % number, b"Content-Type:  text/plain ", b"Set-Cookie: a=%d" % number]
        return parse_response(b"\r\n".join([*lines, b"", b""]))[0].headers

    for number in (*range(2 * KNOWN_FIELDS), 0, 1):
        expected = [(b"x-n", b"%d" % number), (b"content-type", b"text/plain"), (b"set-cookie", b"a=%d" % number)]
        assert head(number) == head(number) == expected
    assert len(_known_fields) <= KNOWN_FIELDS
    assert not any(field.pair[0] == b"set-cookie" for field in _known_fields.values())


def test_a_line_without_a_colon_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(FramingError):
            parse_response(b"HTTP/1.1 200 OK\r\nserver\r\n\r\n")
