"""A request head: llhttp's strictness plus what llhttp lets through (reference: measured list of what it accepts)."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import httptools

from devmesh.sidecar.http1.framing import NO_BODY, Body, ChunkedBody, LengthBody
from devmesh.sidecar.message import (
    HAS_CODING,
    HAS_CONNECTION,
    HAS_HOST,
    HAS_LENGTH,
    KEEP,
    REQUEST_KINDS,
    Headers,
    RequestHead,
    set_header,
)


class BadRequest(Exception):
    """A request that is answered and never forwarded. `details` is Envoy's response_code_details; `protocol_error` sets DPE.

    `head` is what was understood of it, for the log.
    """

    def __init__(self, status: int, body: bytes, details: str, *, protocol_error: bool = True, head: RequestHead | None = None) -> None:
        super().__init__(status, details)
        self.status, self.body, self.details, self.protocol_error, self.head = status, body, details, protocol_error, head


CODEC_ERROR: Final = (400, b"Bad Request", "http1.codec_error")
READ_HERE: Final = HAS_HOST | HAS_LENGTH | HAS_CODING | HAS_CONNECTION
NEVER_NAMED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})
MAX_NAMED: Final = 9
ABSOLUTE: Final = re.compile(rb"(?i:(https?))://(?:[^/?#@]*@)?(\[[0-9a-fA-F:.]+\]|[^/?#@:\[\]]+)(?::([0-9]{1,5}))?([/?][^#]*)?")
TOO_LARGE: Final = (431, b"Request Header Fields Too Large", "http1.headers_too_large")
TOO_MANY: Final = (431, b"Request Header Fields Too Large", "http1.too_many_headers")
LOW_VERSION: Final = (426, b"Upgrade Required", "low_version")
BAD_CODING: Final = (501, b"Not Implemented", "http1.invalid_transfer_encoding")
NO_VERSION: Final = re.compile(rb"[A-Z]+ /[^ ]*")  # HTTP/0.9
OTHER_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
KNOWN_HOSTS: Final = 1024  # a client that invents hosts fills no more
_known_hosts: Final[set[bytes]] = set()
AUTHORITY: Final = re.compile(rb"[0-9A-Za-z!$%&'()*+,\-.:;=@\[\]_~]*")  # what Envoy lets through, asked for every character


class _Collector:
    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9110 section 5.5: white space around a value is not part of it; llhttp leaves what follows.
        if value.endswith(b" ") or value.endswith(b"\t"):  # noqa: PIE810 - compiled code has no words for several endings
            value = value.rstrip(b" \t")
        self.headers.append((name.lower(), value))


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
    if head.method == b"CONNECT":
        if b"/" in head.target:
            raise BadRequest(*CODEC_ERROR)  # an authority (RFC 9112 section 3.2.3) has none
        return None
    if head.target[:1] == b"/" or (head.target == b"*" and head.method == b"OPTIONS"):
        return None
    match = ABSOLUTE.fullmatch(head.target)
    if match is None or (match[3] is not None and int(match[3]) > 65_535):
        raise BadRequest(*CODEC_ERROR)
    head.authority = match[2] + (b":" + match[3] if match[3] is not None else b"")
    head.target = match[4] or b"/"
    set_header(head.headers, b"host", head.authority)
    host = match[2].decode("latin-1").strip("[]").lower()
    return Absolute(match[1].decode().lower(), host, int(match[3]) if match[3] is not None else None)


class RequestHeads:
    """The heads of one connection, in their order.

    To make a parser costs as much as to parse a short head with it, so one is used again when its message ended with the head and the
    connection goes on. In any other state (a body to come, a tunnel, `close`, an error) llhttp would read the next head as something else.
    """

    __slots__ = ("_collector", "_parser")

    def __init__(self) -> None:
        self._collector = _Collector()
        self._parser: Any = None

    def parse(self, head: bytes, max_headers: int = 100) -> tuple[RequestHead, Body]:
        """Parse one head that ends with an empty line. Raises BadRequest."""
        parser, collector = self._parser, self._collector
        self._parser = None
        if parser is None:
            collector = self._collector = _Collector()
            parser = httptools.HttpRequestParser(collector)
        else:
            collector.headers = []
        method, target, tunnel = _read(head, parser)
        headers, collector.headers = collector.headers, []
        request, body = _checked(method, target, headers, max_headers)
        if not (tunnel or request.close) and body is NO_BODY:
            self._parser = parser
        return request, body


def parse_request(head: bytes, max_headers: int = 100) -> tuple[RequestHead, Body]:
    """One head by itself."""
    return RequestHeads().parse(head, max_headers)


def _checked(method: bytes, target: bytes, headers: Headers, max_headers: int) -> tuple[RequestHead, Body]:
    """What llhttp lets through and is refused nevertheless. Raises BadRequest."""
    if len(headers) > max_headers:
        raise BadRequest(*TOO_MANY)
    host = length = coding = None
    hosts = 0
    close = False
    has = 0
    for name, value in headers:
        kind = REQUEST_KINDS.get(name)
        if kind is None:
            continue
        has |= kind
        if not kind & READ_HERE:
            continue
        if kind == HAS_HOST:
            host = value
            hosts += 1
        elif kind == HAS_LENGTH:
            length = value
        elif kind == HAS_CODING:
            coding = value
        else:
            options = value.lower()
            close = close or b"close" in options
            if name == b"connection" and options not in KEEP:
                _check_named(options, method, target, headers)
    if hosts != 1 or host is None:
        # RFC 9112 section 3.2: a missing or repeated Host must be answered with 400.
        raise _no_host(method, target, headers) if not hosts else BadRequest(*CODEC_ERROR)
    if host not in _known_hosts and not _is_authority(host):
        raise BadRequest(400, b"Bad Request", "http.invalid_authority")
    body = _request_body(method, length, coding)
    if coding is not None and coding != b"chunked":
        set_header(headers, b"transfer-encoding", b"chunked")  # in any case here, and in one for those behind us
    return RequestHead(method, target, host, headers, close=close, has=has), body


def _is_authority(host: bytes) -> bool:
    valid = AUTHORITY.fullmatch(host) is not None
    if valid and len(_known_hosts) < KNOWN_HOSTS:
        _known_hosts.add(host)
    return valid


def _read(head: bytes, parser: Any) -> tuple[bytes, bytes, bool]:
    """Method, target, and whether the parser took it for the start of a tunnel; header fields go to its collector. Raises BadRequest."""
    line, line_end, _ = head.partition(b"\r\n")
    parts = line.split(b" ")
    if not line_end or len(parts) != 3:
        raise BadRequest(*(LOW_VERSION if NO_VERSION.fullmatch(line) else CODEC_ERROR))
    method, target, version = parts
    tunnel = False
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        tunnel = True  # its bytes are not in `head`
    except httptools.HttpParserError as error:
        raise _why(head, version) from error
    if version != b"HTTP/1.1":
        raise BadRequest(*(LOW_VERSION if OTHER_VERSION.fullmatch(version) else CODEC_ERROR))
    return method, target, tunnel


def _why(head: bytes, version: bytes) -> BadRequest:
    """What Envoy calls that which llhttp refused."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    codings = [value.strip(b" \t").lower() for name, _, value in lines if name.lower() == b"transfer-encoding"]
    if version != b"HTTP/1.1" and OTHER_VERSION.fullmatch(version):
        return BadRequest(*LOW_VERSION)
    if any(CONTROL.search(value) for _, _, value in lines):
        return BadRequest(400, b"Bad Request", "http1.invalid_characters")
    if any(name[:1] in (b" ", b"\t") for name, _, _ in lines):
        return BadRequest(*CODEC_ERROR)  # a folded line
    if codings and any(name.lower() == b"content-length" for name, _, _ in lines):
        return BadRequest(400, b"Bad Request", "http1.content_length_and_chunked_not_allowed")
    if codings and codings != [b"chunked"]:
        return BadRequest(*BAD_CODING)
    return BadRequest(*CODEC_ERROR)


def _no_host(method: bytes, target: bytes, headers: Headers) -> BadRequest:
    return BadRequest(400, b"", "missing_host_header", protocol_error=False, head=RequestHead(method, target, b"", headers))


def _check_named(options: bytes, method: bytes, target: bytes, headers: Headers) -> None:
    """RFC 9110 section 7.6.1: fields that Connection names end here; a request whose Host does has none. Raises BadRequest.

    A client that names what tells where a request comes from would hide that; as Envoy, we refuse it, and one that names very many.
    """
    named = [option.strip() for option in options.split(b",") if option]
    if len(named) > MAX_NAMED or not NEVER_NAMED.isdisjoint(named):
        raise BadRequest(400, b"Bad Request", "http1.connection_header_rejected")
    if b"host" in named:
        raise _no_host(method, target, [pair for pair in headers if pair[0] != b"host"])


def _request_body(method: bytes, length: bytes | None, coding: bytes | None) -> Body:
    """RFC 9112 section 6.3; llhttp has refused both at once and repeated lengths."""
    if coding is not None:
        if coding.lower() != b"chunked":
            raise BadRequest(*BAD_CODING)
        return ChunkedBody()
    if length is None or method == b"CONNECT":
        return NO_BODY
    return LengthBody(int(length))
