"""A request head: llhttp's strictness plus what llhttp lets through (reference: measured list of what it accepts)."""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from devmesh.sidecar.http1.framing import NO_BODY, Body, ChunkedBody, LengthBody
from devmesh.sidecar.message import Headers, RequestHead, set_header


class BadRequest(Exception):
    """A request that is answered and never forwarded. `details` is Envoy's response_code_details; `protocol_error` sets DPE."""

    def __init__(self, status: int, body: bytes, details: str, *, protocol_error: bool = True) -> None:
        super().__init__(status, details)
        self.status, self.body, self.details, self.protocol_error = status, body, details, protocol_error


CODEC_ERROR = (400, b"Bad Request", "http1.codec_error")
READ_HERE = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
ABSOLUTE = re.compile(rb"(?i:(https?))://(?:[^/?#@]*@)?(\[[0-9a-fA-F:.]+\]|[^/?#@:\[\]]+)(?::([0-9]{1,5}))?([/?][^#]*)?")
TOO_LARGE = (431, b"Request Header Fields Too Large", "http1.headers_too_large")


class _Collector:
    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9110 section 5.5: white space around a value is not part of it; llhttp leaves what follows.
        self.headers.append((name.lower(), value.rstrip(b" \t")))


class Absolute(NamedTuple):
    """What an absolute-form target names besides its path."""

    scheme: str
    host: str  # lower-case, without the brackets of an IPv6 address
    port: int | None


def to_origin_form(head: RequestHead) -> Absolute | None:
    """Read an absolute-form target as Envoy does (allow_absolute_url; RFC 9112 section 3.2.2): its authority is the Host, its path the target.

    Observed on Envoy 1.40: user information is passed over, another scheme, a fragment and `*` of anything but OPTIONS are 400. Other forms
    stay as they are: None. Raises BadRequest.
    """
    if head.target[:1] == b"/" or head.method == b"CONNECT" or (head.target == b"*" and head.method == b"OPTIONS"):
        return None
    match = ABSOLUTE.fullmatch(head.target)
    if match is None or (match[3] is not None and int(match[3]) > 65_535):
        raise BadRequest(*CODEC_ERROR)
    head.authority = match[2] + (b":" + match[3] if match[3] is not None else b"")
    head.target = match[4] or b"/"
    set_header(head.headers, b"host", head.authority)
    host = match[2].decode("latin-1").strip("[]").lower()
    return Absolute(match[1].decode().lower(), host, int(match[3]) if match[3] is not None else None)


def parse_request(head: bytes) -> tuple[RequestHead, Body]:
    """Parse one head that ends with an empty line. Raises BadRequest."""
    line_end = head.find(b"\r\n")
    parts = head[:line_end].split(b" ")
    if line_end < 0 or len(parts) != 3:
        raise BadRequest(*CODEC_ERROR)
    method, target, version = parts
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # the tunnel's bytes are not in `head`
    except httptools.HttpParserError as error:
        raise BadRequest(*CODEC_ERROR) from error
    if version == b"HTTP/1.0":
        raise BadRequest(426, b"Upgrade Required", "low_version")
    if version != b"HTTP/1.1":
        raise BadRequest(*CODEC_ERROR)
    headers = collector.headers
    host = length = coding = None
    hosts = 0
    close = False
    for name, value in headers:
        if name not in READ_HERE:
            continue
        if name == b"host":
            host = value
            hosts += 1
        elif name == b"content-length":
            length = value
        elif name == b"transfer-encoding":
            coding = value
        elif b"close" in value.lower():
            close = True
    if hosts != 1 or host is None:
        # RFC 9112 section 3.2: a missing or repeated Host must be answered with 400.
        raise BadRequest(400, b"", "missing_host_header", protocol_error=False) if not hosts else BadRequest(*CODEC_ERROR)
    return RequestHead(method, target, host, headers, close=close), _request_body(method, length, coding)


def _request_body(method: bytes, length: bytes | None, coding: bytes | None) -> Body:
    """RFC 9112 section 6.3; llhttp has refused both at once and repeated lengths."""
    if coding is not None:
        if coding.lower() != b"chunked":
            raise BadRequest(501, b"Not Implemented", "http1.invalid_transfer_encoding")
        return ChunkedBody()
    if length is None or method == b"CONNECT":
        return NO_BODY
    return LengthBody(int(length))
