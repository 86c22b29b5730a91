"""A response head and its body's framing. httptools cannot be told "this answers a HEAD", so this is our own."""

from __future__ import annotations

import re

from devmesh.sidecar.http1.framing import Body, ChunkedBody, CloseBody, FramingError, LengthBody, NoBody
from devmesh.sidecar.message import Headers, ResponseHead

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?")
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
UNSAFE = re.compile(rb"[\r\n\0]")  # would begin another line, or end a value, for somebody behind us
MAX_HEAD = 96 * 1024


def parse_response(head: bytes) -> tuple[ResponseHead, bool]:
    """The head (with its final empty line) and whether the connection persists afterwards. Raises FramingError."""
    lines = head[:-4].split(b"\r\n")
    status_line = STATUS_LINE.fullmatch(lines[0])
    if status_line is None:
        raise FramingError("malformed status line")
    headers: Headers = []
    options: set[bytes] = set()
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or TOKEN.fullmatch(name) is None or UNSAFE.search(value):
            raise FramingError("malformed header line")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name == b"connection":
            options |= {option.strip() for option in value.lower().split(b",")}
    # RFC 9112 section 9.3: `close` wins, on whichever line it stands.
    keep = b"close" not in options and (status_line[1] == b"1" or b"keep-alive" in options)
    return ResponseHead(int(status_line[2]), headers, status_line[3] or b""), keep


def response_body(head: ResponseHead, method: bytes) -> Body:
    """RFC 9112 section 6.3, in its order. Raises FramingError for lengths that contradict each other."""
    if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return NoBody()
    lengths = {value for name, value in head.headers if name == b"content-length"}
    encodings = [value.lower() for name, value in head.headers if name == b"transfer-encoding"]
    if encodings:
        if lengths:
            raise FramingError("Content-Length and Transfer-Encoding")
        return ChunkedBody() if encodings[-1].endswith(b"chunked") else CloseBody()
    if not lengths:
        return CloseBody()
    length = lengths.pop()
    if lengths or not length.isdigit():
        raise FramingError("Content-Length")
    return LengthBody(int(length))
