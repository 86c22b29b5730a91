"""A response head and its body's framing. httptools cannot be told "this answers a HEAD", so this is our own."""

from __future__ import annotations

import re
from typing import Any, Final

from devmesh.sidecar.http1.framing import NO_BODY, Body, ChunkedBody, CloseBody, FramingError, LengthBody
from devmesh.sidecar.message import (
    BODILESS,
    HAS_CODING,
    HAS_CONNECTION,
    HAS_LENGTH,
    HAS_LENGTHS,
    RESPONSE_KINDS,
    Headers,
    ResponseHead,
    get_header,
    remove_header,
    set_header,
)

STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n\0]*))?")
CONTROL: Final = re.compile(
    rb"[\x00-\x08\x0a-\x1f\x7f]"
)  # RFC 9110 section 5.5; some begin another line, or end a value, for somebody behind us
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
MAX_HEAD: Final = 96 * 1024
MAX_HEADERS: Final = 100  # Envoy's max_headers_count
MAX_LENGTH: Final = 2**64 - 1  # as everybody else counts
KNOWN_NAMES: Final = 1024  # an upstream that invents names fills no more
KNOWN_FIELDS: Final = 512
KNOWN_LINE: Final = 80  # bytes; longer ones (policies) are not worth their room
KNOWN_STARTS: Final = 256


class _Field:
    """A header line that was read: name and value as one object, which every head that has the line shares, and their kind."""

    __slots__ = ("kind", "length", "pair")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.pair: Any = (name, value)  # Any: compiled code would take a tuple apart, and make another one
        self.kind = RESPONSE_KINDS.get(name, 0)
        self.length = int(value) if self.kind & HAS_LENGTH and value.isdigit() and len(value) < 19 else -1


_known_fields: Final[dict[bytes, _Field]] = {}
_known_names: Final[dict[bytes, bytes]] = {}
_known_starts: Final[dict[bytes, tuple[int, bool]]] = {}


def parse_response(head: bytes) -> tuple[ResponseHead, bool]:
    """The head (with its final empty line) and whether the connection persists afterwards. Raises FramingError."""
    return parse_lines(head[:-4])


def parse_lines(text: bytes) -> tuple[ResponseHead, bool]:
    """A head without the end of its last line and the empty one behind it, otherwise as `parse_response`."""
    lines = text.split(b"\r\n")
    if len(lines) - 1 > MAX_HEADERS:
        raise FramingError("too many header lines")
    start = _known_starts.get(lines[0])
    status, persists = start if start is not None else _start(lines[0])
    headers: Headers = []
    has, length = 0, -1
    for index in range(1, len(lines)):
        line = lines[index]
        field = _known_fields.get(line)
        if field is None:
            field = _field(line)
        headers.append(field.pair)
        kind = field.kind
        if kind & HAS_LENGTH:
            length = field.length
            if has & HAS_LENGTH:
                has |= HAS_LENGTHS
        has |= kind
    return ResponseHead(status, headers, has, length), _persists(headers, persists=persists) if has & HAS_CONNECTION else persists


def _persists(headers: Headers, *, persists: bool) -> bool:
    """RFC 9112 section 9.3: `close` wins, on whichever line it stands."""
    options = {option.strip() for name, value in headers if name == b"connection" for option in value.lower().split(b",")}
    return b"close" not in options and (persists or b"keep-alive" in options)


def _start(line: bytes) -> tuple[int, bool]:
    """The status of a status line, and whether its version persists by itself; the few lines that upstreams send are remembered."""
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        raise FramingError("malformed status line")
    read = int(match[2]), match[1] == b"1"
    if len(_known_starts) < KNOWN_STARTS:
        _known_starts[line] = read
    return read


def _field(line: bytes) -> _Field:
    """The name and value of a header line; lines come again and again, and those that do not (dates) make room by themselves."""
    raw, colon, value = line.partition(b":")
    name = _known_names.get(raw)
    if name is None:
        name = _field_name(raw)
    if not colon:
        raise FramingError("malformed header line")
    if CONTROL.search(value) is not None:
        raise FramingError("control character")
    field = _Field(name, value.strip(b" \t"))
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
    has, length = head.has, 0
    if has & HAS_LENGTHS:
        raise FramingError("Content-Length")
    if has & HAS_CODING:
        _check_coding(head)
    elif has & HAS_LENGTH:
        length = head.length if head.length >= 0 else _length(head.headers)
    if method == b"HEAD" or head.status in BODILESS:
        return NO_BODY
    if has & HAS_CODING:
        return ChunkedBody()
    return LengthBody(length) if has & HAS_LENGTH else CloseBody()


def _check_coding(head: ResponseHead) -> None:
    """It may be `chunked` alone, and goes on as that; RFC 9112 section 6.1 has none for a 204. Raises FramingError."""
    if head.has & HAS_LENGTH:
        raise FramingError("Content-Length and Transfer-Encoding")
    coding = [value for name, value in head.headers if name == b"transfer-encoding"][-1]
    if coding.lower() != b"chunked" or head.status == 204:
        raise FramingError("Transfer-Encoding")
    if head.status == 304:
        remove_header(head.headers, b"transfer-encoding")
        head.has &= ~HAS_CODING
    elif coding != b"chunked":
        set_header(head.headers, b"transfer-encoding", b"chunked")


def _length(headers: Headers) -> int:
    length = get_header(headers, b"content-length")
    if length is None or not length.isdigit() or int(length) > MAX_LENGTH:
        raise FramingError("Content-Length")
    return int(length)
