"""A response head and its body's framing. httptools cannot be told "this answers a HEAD", so this is our own."""

from __future__ import annotations

import re
from typing import Final

from devmesh.sidecar.http1.framing import NO_BODY, Body, ChunkedBody, CloseBody, FramingError, LengthBody
from devmesh.sidecar.message import Headers, ResponseHead, remove_header, set_header

STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?")
CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # RFC 9110 section 5.5 lets a recipient refuse them, as Envoy does
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
MAX_HEAD: Final = 96 * 1024
MAX_HEADERS: Final = 100  # Envoy's max_headers_count
NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
MAX_LENGTH: Final = 2**64 - 1  # as everybody else counts
BODILESS: Final = (204, 304)  # RFC 9110 sections 15.3.5 and 15.4.5
KNOWN_NAMES: Final = 1024  # an upstream that invents names fills no more
KNOWN_FIELDS: Final = 512
KNOWN_LINE: Final = 80  # bytes; longer ones (policies) are not worth their room
KNOWN_STARTS: Final = 256
_known_fields: Final[dict[bytes, tuple[bytes, bytes]]] = {}
_known_names: Final[dict[bytes, bytes]] = {}
_known_starts: Final[dict[bytes, tuple[int, bool]]] = {}


def parse_response(head: bytes) -> tuple[ResponseHead, bool]:
    """The head (with its final empty line) and whether the connection persists afterwards. Raises FramingError."""
    lines = head[:-4].split(b"\r\n")
    known = _known_starts.get(lines[0])
    status, persists = known if known is not None else _start(lines[0])
    # A CR, LF or NUL elsewhere would begin another line, or end a value, for somebody behind us.
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or head.find(b"\0") >= 0:
        raise FramingError("malformed header line")
    if len(lines) - 1 > MAX_HEADERS:
        raise FramingError("too many header lines")
    headers: Headers = []
    options: frozenset[bytes] = NO_OPTIONS
    for line in lines[1:]:
        field = _known_fields.get(line)
        if field is None:
            field = _field(line)
        headers.append(field)
        if field[0] == b"connection":
            options |= {option.strip() for option in field[1].lower().split(b",")}
    # RFC 9112 section 9.3: `close` wins, on whichever line it stands.
    keep = b"close" not in options and (persists or b"keep-alive" in options)
    return ResponseHead(status, headers), keep


def _start(line: bytes) -> tuple[int, bool]:
    """The status of a status line, and whether its version persists by itself; the few lines that upstreams send are remembered."""
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        raise FramingError("malformed status line")
    read = int(match[2]), match[1] == b"1"
    if len(_known_starts) < KNOWN_STARTS:
        _known_starts[line] = read
    return read


def _field(line: bytes) -> tuple[bytes, bytes]:
    """The name and value of a header line; lines come again and again, and those that do not (dates) make room by themselves."""
    raw, colon, value = line.partition(b":")
    name = _known_names.get(raw)
    if name is None:
        name = _field_name(raw)
    if not colon:
        raise FramingError("malformed header line")
    if CONTROL.search(value) is not None:
        raise FramingError("control character")
    field = name, value.strip(b" \t")
    if len(line) <= KNOWN_LINE and name != b"set-cookie":  # a secret is not kept
        if len(_known_fields) >= KNOWN_FIELDS:
            _known_fields.clear()
        _known_fields[line] = field
    return field


def _field_name(raw: bytes) -> bytes:
    """The lower-case name of a token; the few names that upstreams use are remembered."""
    if TOKEN.fullmatch(raw) is None:
        raise FramingError("malformed header line")
    name = raw.lower()
    if len(_known_names) < KNOWN_NAMES:
        _known_names[raw] = name
    return name


def response_body(head: ResponseHead, method: bytes) -> Body:
    """RFC 9112 section 6.3, in its order. Raises FramingError for lengths that contradict each other, or say nothing, of no body too."""
    if head.status < 200:
        return NO_BODY
    length = coding = None
    for name, value in head.headers:
        if name == b"content-length":
            if length is not None:
                raise FramingError("Content-Length")
            length = value
        elif name == b"transfer-encoding":
            coding = value
    if coding is not None:
        _check_coding(head, length, coding)
    elif length is not None and not (length.isdigit() and int(length) <= MAX_LENGTH):
        raise FramingError("Content-Length")
    if method == b"HEAD" or head.status in BODILESS:
        return NO_BODY
    if coding is not None:
        return ChunkedBody()
    return CloseBody() if length is None else LengthBody(int(length))


def _check_coding(head: ResponseHead, length: bytes | None, coding: bytes) -> None:
    """It may be `chunked` alone, and goes on as that; RFC 9112 section 6.1 has none for a 204. Raises FramingError."""
    if length is not None:
        raise FramingError("Content-Length and Transfer-Encoding")
    if coding.lower() != b"chunked" or head.status == 204:
        raise FramingError("Transfer-Encoding")
    if head.status == 304:
        remove_header(head.headers, b"transfer-encoding")
    elif coding != b"chunked":
        set_header(head.headers, b"transfer-encoding", b"chunked")
