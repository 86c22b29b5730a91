"""What the proxy answers by itself, word for word as Envoy 1.40 (reference: observed replies)."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from devmesh.sidecar.message import BODILESS, Headers, get_header, set_header
from devmesh.sidecar.record import Flag

GRPC_STATUS: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}  # anything else: 2 UNKNOWN
RESET: Final = "upstream connect error or disconnect/reset before headers. reset reason: "
RETRIED: Final = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: "


@dataclass(frozen=True, slots=True)
class LocalReply:
    status: int
    body: bytes = b""
    flags: Flag = Flag.NONE
    details: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    grpc_status: int | None = None


ROUTE_NOT_FOUND: Final = LocalReply(404, b"", Flag.NR, "route_not_found")
NO_PATH: Final = LocalReply(404, b"", Flag.NONE, "absolute_path_rejected")
CLUSTER_NOT_FOUND: Final = LocalReply(503, b"", Flag.NC, "cluster_not_found")
NO_HEALTHY_UPSTREAM: Final = LocalReply(503, b"no healthy upstream", Flag.UH, "no_healthy_upstream")
OVERFLOW: Final = LocalReply(
    503,
    (RESET + "overflow").encode(),
    Flag.UO,
    "upstream_reset_before_response_started{overflow}",
    ((b"x-envoy-overloaded", b"true"),),
)
ROUTE_TIMEOUT: Final = LocalReply(504, b"upstream request timeout", Flag.UT, "response_timeout")
PER_TRY_TIMEOUT: Final = LocalReply(504, b"upstream request timeout", Flag.UT, "upstream_per_try_timeout")
STREAM_IDLE: Final = LocalReply(504, b"stream timeout", Flag.SI, "stream_idle_timeout")
MAX_DURATION: Final = LocalReply(504, b"downstream duration timeout", Flag.NONE, "max_duration_timeout")
REQUEST_TIMEOUT: Final = LocalReply(408, b"request timeout", Flag.NONE, "request_overall_timeout")
UPGRADE_REFUSED: Final = LocalReply(403, b"", Flag.NONE, "upgrade_failed")
BLACK_HOLE: Final = LocalReply(502, b"", Flag.NONE, "direct_response")


def reset(details: str, *, retried: bool, connect: bool) -> LocalReply:
    """The reply for an attempt that ended before response headers; TLS and OS texts stay out of the body."""
    reason = details.partition("|")[0].replace("_", " ").partition("{")[0]
    status = 502 if details == "protocol_error" else 503
    flag = Flag.UPE if details == "protocol_error" else Flag.UF if connect else Flag.UC
    text = (RETRIED if retried else RESET) + reason
    return LocalReply(status, text.encode(), flag, f"upstream_reset_before_response_started{{{details}}}")


def render(reply: LocalReply, headers: Headers, *, grpc: bool, date: bytes, server: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and body, of which `headers`, the reply's own after the route's edits, say nothing that counts.

    A gRPC caller gets trailers-only 200 with grpc-status (Envoy local replies).
    """
    if grpc:
        status = reply.grpc_status if reply.grpc_status is not None else GRPC_STATUS.get(reply.status, 2)
        set_header(headers, b"content-type", b"application/grpc")
        set_header(headers, b"grpc-status", b"%d" % status)
        if reply.body:
            set_header(headers, b"grpc-message", reply.body)
    elif reply.body:
        set_header(headers, b"content-type", b"text/plain")
    body = b"" if grpc else reply.body
    if grpc or body or reply.status not in BODILESS:
        set_header(headers, b"content-length", b"%d" % len(body))
    if get_header(headers, b"date") is None:
        headers.append((b"date", date))
    set_header(headers, b"server", server)
    return 200 if grpc else reply.status, headers, body


def has_location(status: int) -> bool:
    """RFC 9110 section 10.2.2."""
    return status == 201 or 300 <= status < 400


# Where Envoy 1.40 has other words than Python (asked for 102, 103 and every status from 200 to 599).
PHRASES: Final = {
    102: b"Unknown",
    103: b"Unknown",
    413: b"Payload Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    418: b"Unknown",
    451: b"Unknown",
    599: b"Last Unassigned Server Error Code",
}


@functools.cache
def reason_phrase(status: int) -> bytes:
    """Envoy's: it forwards no reason phrase, which means nothing (RFC 9112 section 4)."""
    if status in PHRASES:
        return PHRASES[status]
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


_status_lines: Final[dict[int, bytes]] = {}


def status_line(status: int) -> bytes:
    """With its CRLF; each of the few hundred is made once."""
    line = _status_lines.get(status)
    if line is None:
        line = _status_lines[status] = b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status))
    return line


class _Date:
    """The second that it was last asked in, its text, and how long that holds by a clock that is read anyhow."""

    __slots__ = ("second", "since", "text", "until")

    def __init__(self) -> None:
        self.second, self.text = -1, b""
        self.since = self.until = 0.0


_date: Final = _Date()


def http_date() -> bytes:
    return _written(time.time_ns())


def http_date_at(now: float) -> bytes:
    """The date, for which the wall clock is asked once a second; `now` is a clock that is read anyhow, in seconds, always the same one."""
    if not _date.since <= now < _date.until:
        wall = time.time_ns()
        _written(wall)
        _date.since, _date.until = now, now + 1 - wall % 1_000_000_000 / 1e9
    return _date.text


def _written(wall_ns: int) -> bytes:
    second = wall_ns // 1_000_000_000
    if second != _date.second:
        _date.second, _date.text = second, formatdate(second, usegmt=True).encode()
    return _date.text
