"""Local replies word for word as Envoy's, plain and for gRPC callers."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest

from devmesh.sidecar import replies
from devmesh.sidecar.record import Flag
from devmesh.sidecar.replies import LocalReply

PREFIX = "upstream connect error or disconnect/reset before headers. "


def rendered(reply: LocalReply, *, grpc: bool = False):
    status, headers, body = replies.render(reply, list(reply.headers), grpc=grpc, date=b"d", server=b"istio-envoy")
    assert (headers[-2:]) == [(b"date", b"d"), (b"server", b"istio-envoy")]
    return status, headers[:-2], body


@pytest.mark.parametrize(
    ("reply", "status", "headers", "body"),
    [
        (replies.ROUTE_NOT_FOUND, 404, [(b"content-length", b"0")], b""),
        (replies.NO_HEALTHY_UPSTREAM, 503, [(b"content-type", b"text/plain"), (b"content-length", b"19")], b"no healthy upstream"),
        (LocalReply(204), 204, [], b""),
        (LocalReply(304), 304, [], b""),
        (LocalReply(301, headers=((b"location", b"/a"),)), 301, [(b"location", b"/a"), (b"content-length", b"0")], b""),
    ],
)
def test_a_reply_has_a_length_and_a_type_when_it_has_a_body(reply, status, headers, body):
    assert rendered(reply) == (status, headers, body)


def test_what_a_route_says_of_the_body_or_the_server_does_not_count():
    edited = [(b"content-type", b"x"), (b"server", b"x"), (b"x-a", b"1")]
    _, headers, _ = replies.render(replies.NO_HEALTHY_UPSTREAM, edited, grpc=False, date=b"d", server=b"envoy")
    assert dict(headers) == {b"content-type": b"text/plain", b"content-length": b"19", b"server": b"envoy", b"x-a": b"1", b"date": b"d"}


def test_an_overflow_says_so_in_a_header():
    _, headers, body = rendered(replies.OVERFLOW)
    assert headers[0] == (b"x-envoy-overloaded", b"true")
    assert body.decode() == PREFIX + "reset reason: overflow"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (LocalReply(400), b"13"), (LocalReply(401), b"16"), (LocalReply(403), b"7"), (LocalReply(404), b"12"), (LocalReply(429), b"14"),
        (LocalReply(503), b"14"), (LocalReply(504), b"14"), (LocalReply(418), b"2"), (LocalReply(503, grpc_status=8), b"8"),
    ],
)  # fmt: skip
def test_a_grpc_caller_gets_200_and_the_status_in_a_header(reply, status):
    code, headers, body = rendered(reply, grpc=True)
    assert (code, body) == (200, b"")
    assert dict(headers) == {b"content-type": b"application/grpc", b"grpc-status": status, b"content-length": b"0"}


def test_a_grpc_caller_gets_the_body_as_message():
    assert (b"grpc-message", b"no healthy upstream") in rendered(replies.NO_HEALTHY_UPSTREAM, grpc=True)[1]


@pytest.mark.parametrize(
    ("details", "retried", "connect", "status", "flag", "body"),
    [
        ("connection_termination", False, False, 503, Flag.UC, PREFIX + "reset reason: connection termination"),
        ("connection_termination", True, False, 503, Flag.UC, PREFIX + "retried and the latest reset reason: connection termination"),
        (
            "remote_connection_failure|delayed_connect_error:_111",
            False,
            True,
            503,
            Flag.UF,
            PREFIX + "reset reason: remote connection failure",
        ),
        (
            "remote_connection_failure|TLS_error:_x:TLS_error_end",
            False,
            True,
            503,
            Flag.UF,
            PREFIX + "reset reason: remote connection failure",
        ),
        ("connection_timeout", False, True, 503, Flag.UF, PREFIX + "reset reason: connection timeout"),
        ("protocol_error", False, False, 502, Flag.UPE, PREFIX + "reset reason: protocol error"),
    ],
)
def test_a_failed_attempt_is_told_by_its_reason_and_never_by_its_tls_text(details, retried, connect, status, flag, body):
    reply = replies.reset(details, retried=retried, connect=connect)
    assert (reply.status, reply.flags, reply.body.decode()) == (status, flag, body)
    assert reply.details == f"upstream_reset_before_response_started{{{details}}}"


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(200, b"OK"), (431, b"Request Header Fields Too Large"), (413, b"Payload Too Large"), (418, b"Unknown"), (799, b"Unknown")],
)
def test_reason_phrases(status, phrase):
    assert replies.reason_phrase(status) == phrase


def test_the_date_is_the_wall_clocks_and_made_once_a_second():
    at = 86_400.0 * 365
    before = time.time_ns() // 1_000_000_000
    dates = [replies.http_date_at(at + 5 * turn) for turn in range(3)]
    assert all(before <= parsedate_to_datetime(date.decode()).timestamp() <= time.time_ns() / 1e9 for date in dates)
    assert replies.http_date_at(at) is replies.http_date_at(at)
