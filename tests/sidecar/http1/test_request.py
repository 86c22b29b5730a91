"""Requests that two parsers could read differently are refused; what is let through is forwarded as one message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmesh.sidecar.http1.framing import ChunkedBody, LengthBody, NoBody
from devmesh.sidecar.http1.request import BadRequest, RequestHeads, parse_request, to_origin_form


def request(*headers: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = b"host: a") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *headers, b"", b""])


@pytest.mark.parametrize(
    "headers",
    [
        (b"content-length: 3", b"content-length: 3"),
        (b"content-length: 3", b"content-length: 4"),
        (b"content-length: 3, 3",),
        (b"content-length: +3",),
        (b"content-length: -3",),
        (b"content-length: 0x3",),
        (b"content-length:",),
        (b"content-length: 99999999999999999999999",),
        (b"transfer-encoding : chunked",),
        (b"transfer-encoding:\r\n chunked",),
        (b"x: y\nz: a",),
        (b"x: y\rz: a",),
        (b"x: b\r\n c",),
        (b" x: y",),
        (b": y",),
        (b"nothing",),
        (b"host: a",),
        (b"Host: b",),
    ],
)
def test_an_ambiguous_head_is_a_400_that_closes(headers):
    with pytest.raises(BadRequest) as caught:
        parse_request(request(*headers))
    assert (caught.value.status, caught.value.details, caught.value.protocol_error) == (400, "http1.codec_error", True)


def test_a_hundred_headers_are_not_too_many():
    assert len(parse_request(request(*[b"x: y"] * 99))[0].headers) == 100


def test_what_was_understood_of_a_request_without_a_host_goes_into_the_log():
    with pytest.raises(BadRequest) as caught:
        parse_request(request(b"user-agent: me", line=b"GET /x HTTP/1.1", host=b""))
    assert caught.value.head is not None
    assert (caught.value.head.method, caught.value.head.target) == (b"GET", b"/x")


@pytest.mark.parametrize(
    ("raw", "status", "details"),
    [
        (request(host=b""), 400, "missing_host_header"),
        (request(line=b"GET / HTTP/1.0"), 426, "low_version"),
        (request(line=b"GET / HTTP/1.2"), 426, "low_version"),
        (request(line=b"GET / HTTP/2.0"), 426, "low_version"),
        (request(line=b"GET / http/1.1"), 400, "http1.codec_error"),
        (request(line=b"GET /"), 426, "low_version"),
        (request(line=b"GET  / HTTP/1.1"), 400, "http1.codec_error"),
        (request(line=b"GET\t/ HTTP/1.1"), 400, "http1.codec_error"),
        (request(line=b"get / HTTP/1.1"), 400, "http1.codec_error"),
        (request(line=b"GET /\x01 HTTP/1.1"), 400, "http1.codec_error"),
        (request(line=b"GARBAGE"), 400, "http1.codec_error"),
        (b"GET / HTTP/1.1\nhost: a\n\n", 400, "http1.codec_error"),
        (request(b"transfer-encoding: gzip, chunked"), 501, "http1.invalid_transfer_encoding"),
        (request(b"transfer-encoding: chunked", b"transfer-encoding: chunked"), 501, "http1.invalid_transfer_encoding"),
        (request(b"transfer-encoding: chunked", b"transfer-encoding: gzip"), 501, "http1.invalid_transfer_encoding"),
        (request(b"transfer-encoding: identity"), 501, "http1.invalid_transfer_encoding"),
        (request(b"transfer-encoding:"), 501, "http1.invalid_transfer_encoding"),
        (request(b"transfer-encoding: \x0bchunked"), 400, "http1.invalid_characters"),
        (request(b"content-length: 3", b"transfer-encoding: chunked"), 400, "http1.content_length_and_chunked_not_allowed"),
        (request(b"transfer-encoding: chunked", b"content-length: 3"), 400, "http1.content_length_and_chunked_not_allowed"),
        (
            request(b"connection: upgrade", b"upgrade: websocket", b"content-length: 3", b"transfer-encoding: chunked"),
            400,
            "http1.content_length_and_chunked_not_allowed",
        ),
        (request(b"x: a\0b"), 400, "http1.invalid_characters"),
        (request(b"x: a\x01b"), 400, "http1.invalid_characters"),
        (request(host=b"host: a/b"), 400, "http.invalid_authority"),
        (request(b"connection: close, Host"), 400, "missing_host_header"),
        (request(b"connection: close, X-Forwarded-For"), 400, "http1.connection_header_rejected"),
        (request(b"connection: a,b,c,d,e,f,g,h,i,j"), 400, "http1.connection_header_rejected"),
        (request(*[b"x: y"] * 100), 431, "http1.too_many_headers"),
    ],
)
def test_each_refusal_says_why(raw, status, details):
    with pytest.raises(BadRequest) as caught:
        parse_request(raw)
    assert (caught.value.status, caught.value.details) == (status, details)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ((), NoBody),
        ((b"content-length: 3",), LengthBody),
        ((b"content-length: 0",), LengthBody),
        ((b"content-length:\t3 \t",), LengthBody),
        ((b"transfer-encoding: chunked",), ChunkedBody),
        ((b"Transfer-Encoding:  cHuNkEd ",), ChunkedBody),
    ],
)
def test_the_framing_follows_the_headers(headers, kind):
    _, body = parse_request(request(*headers))
    assert type(body) is kind
    assert body.done is (kind is NoBody or headers == (b"content-length: 0",))


def test_names_are_lower_case_and_values_come_without_the_white_space_around_them():
    head, _ = parse_request(request(b"X-A:  b c \t", b"x-a:", line=b"GET /p?q=1 HTTP/1.1", host=b"HOST: Reviews:9080 "))
    assert (head.method, head.target, head.path, head.authority) == (b"GET", b"/p?q=1", b"/p", b"Reviews:9080")
    assert head.headers == [(b"host", b"Reviews:9080"), (b"x-a", b"b c"), (b"x-a", b"")]


def test_an_upgrade_and_a_connect_are_heads_like_others():
    head, body = parse_request(request(b"connection: Upgrade", b"upgrade: websocket", line=b"GET /ws HTTP/1.1"))
    assert (head.target, body.done) == (b"/ws", True)
    head, body = parse_request(request(b"content-length: 5", line=b"CONNECT a:1 HTTP/1.1"))
    assert (head.target, body.done) == (b"a:1", True)


def test_a_head_of_sixty_kibibytes_is_read():
    head, _ = parse_request(request(b"x: " + b"a" * 60_000))
    assert len(head.headers[1][1]) == 60_000


@given(st.binary(max_size=80), st.integers(0, 80))
def test_no_bytes_make_it_raise_anything_but_its_refusal(noise, place):
    raw = request(b"content-length: 3", b"x: y")
    for data in (noise + b"\r\n\r\n", raw[:place] + noise + raw[place:]):
        try:
            head, _ = parse_request(data)
        except BadRequest:
            continue
        assert sum(name == b"host" for name, _ in head.headers) == 1


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://foo.example/abc?x=1", b"foo.example", b"/abc?x=1"),
        (b"http://foo.example:81", b"foo.example:81", b"/"),
        (b"https://foo.example/s", b"foo.example", b"/s"),
        (b"HTTP://u:p@h/x", b"h", b"/x"),
        (b"http://foo.example?q=1", b"foo.example", b"?q=1"),
        (b"http://[::1]:80/v6", b"[::1]:80", b"/v6"),
        (b"/plain", b"bar", b"/plain"),
    ],
)
def test_an_absolute_target_says_host_and_path_whatever_the_host_header_says(target, host, path):
    head, _ = parse_request(b"GET " + target + b" HTTP/1.1\r\nhost: bar\r\n\r\n")
    to_origin_form(head)
    assert (head.authority, head.target, dict(head.headers)[b"host"]) == (host, path, host)


@pytest.mark.parametrize("target", [b"HTTP://Foo.example/#frag", b"ftp://foo/x", b"http:///x", b"http://foo.example:99999/", b"*"])
def test_a_target_that_is_no_url_of_ours_is_refused(target):
    head, _ = parse_request(b"GET " + target + b" HTTP/1.1\r\nhost: bar\r\n\r\n")
    with pytest.raises(BadRequest) as caught:
        to_origin_form(head)
    assert (caught.value.status, caught.value.details) == (400, "http1.codec_error")


def test_a_tunnel_leads_to_an_authority():
    head, _ = parse_request(b"CONNECT a:1/x HTTP/1.1\r\nhost: bar\r\n\r\n")
    with pytest.raises(BadRequest):
        to_origin_form(head)


def test_a_coding_goes_on_as_everybody_writes_it():
    head, _ = parse_request(request(b"transfer-encoding: Chunked"))
    assert (b"transfer-encoding", b"chunked") in head.headers


def test_options_of_everything_stays_as_it_is():
    head, _ = parse_request(b"OPTIONS * HTTP/1.1\r\nhost: bar\r\n\r\n")
    to_origin_form(head)
    assert (head.target, head.authority) == (b"*", b"bar")


def outcome(parse, raw):
    try:
        head, body = parse(raw)
    except BadRequest as error:
        return error.status, error.details
    return head.method, head.target, head.authority, head.headers, head.close, type(body), getattr(body, "left", None)


ONE_AFTER_ANOTHER = {
    "bodiless": request(line=b"GET /a?b HTTP/1.1"),
    "bodiless with headers": request(b"accept: */*", b"x-a: b", line=b"DELETE / HTTP/1.1"),
    "no bytes of body": request(b"content-length: 0"),
    "a body": request(b"content-length: 200"),
    "chunks": request(b"transfer-encoding: chunked"),
    "the last": request(b"connection: close", line=b"GET / HTTP/1.1"),
    "the last in disguise": request(b"connection: x, close", line=b"GET / HTTP/1.1"),
    "the last for a proxy": request(b"proxy-connection: close", line=b"GET / HTTP/1.1"),
    "an upgrade": request(b"connection: upgrade", b"upgrade: websocket", line=b"GET / HTTP/1.1"),
    "an upgrade with a body": request(b"connection: upgrade", b"upgrade: websocket", b"content-length: 3"),
    "a tunnel": request(line=b"CONNECT a:1 HTTP/1.1"),
    "an old version": request(line=b"GET / HTTP/1.0"),
    "two hosts": request(b"host: b", line=b"GET / HTTP/1.1"),
    "no host": request(host=b"", line=b"GET / HTTP/1.1"),
    "both framings": request(b"content-length: 3", b"transfer-encoding: chunked"),
    "a bad name": request(b"x y: z"),
    "a cut value": request(b"x: a\0b"),
    "too many": request(*[b"x: y"] * 100, line=b"GET / HTTP/1.1"),
    "an unknown method": request(line=b"NONE / HTTP/1.1"),
}


@pytest.mark.parametrize("second", ONE_AFTER_ANOTHER)
@pytest.mark.parametrize("first", ONE_AFTER_ANOTHER)
def test_a_head_is_read_alike_whatever_came_before_it_on_its_connection(first, second):
    heads = RequestHeads()
    for _ in range(2):
        outcome(heads.parse, ONE_AFTER_ANOTHER[first])
        assert outcome(heads.parse, ONE_AFTER_ANOTHER[second]) == outcome(parse_request, ONE_AFTER_ANOTHER[second])


@pytest.mark.parametrize(("value", "closes"), [(b"close", True), (b"x, Close", True), (b"keep-alive", False)])
def test_proxy_connection_ends_a_connection_as_connection_does(value, closes):
    """Observed on Envoy 1.40."""
    heads = RequestHeads()
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: " + value + b"\r\n\r\n"
    assert [heads.parse(raw)[0].close for _ in range(3)] == [closes] * 3
