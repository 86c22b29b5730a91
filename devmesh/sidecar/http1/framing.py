"""Where a message body ends (RFC 9112 section 6.3): the bytes pass through as received, only their end is found.

`content` counts the bytes that are the message's own, without chunk sizes and trailers: what Envoy logs.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final


class FramingError(Exception):
    """The peer's body framing is not RFC 9112; nothing after it can be trusted."""


class NoBody:
    """No body at all."""

    done = True
    chunked = False
    content = 0

    def feed(self, data: bytes) -> int:
        del data
        return 0


NO_BODY: Final = NoBody()  # it has no state


class LengthBody:
    """Content-Length."""

    chunked = False

    def __init__(self, length: int) -> None:
        self.left = length
        self.content = 0
        self.done = length == 0

    def feed(self, data: bytes) -> int:
        """How many bytes of data belong to this body."""
        taken = min(self.left, len(data))
        self.left -= taken
        self.content += taken
        self.done = self.left == 0
        return taken


class CloseBody:
    """Ends when the peer closes; responses only."""

    done = False
    chunked = False

    def __init__(self) -> None:
        self.content = 0

    def feed(self, data: bytes) -> int:
        self.content += len(data)
        return len(data)


class _Chunk(Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data end"
    TRAILER = "trailer"


MAX_LINE: Final = 16 * 1024  # a chunk-size line with extensions, or one trailer line


TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00\r\n]*")  # a field line; a folded one is none


class ChunkedBody:
    """Transfer-Encoding: chunked (RFC 9112 section 7.1), trailers included; bytes are not rewritten.

    A scanner over states, since the last chunk can be split anywhere and its bytes can occur inside data.
    """

    chunked = True

    def __init__(self) -> None:
        self.done = False
        self.content = 0
        self._state = _Chunk.SIZE
        self._line = b""
        self._left = 0

    def feed(self, data: bytes) -> int:
        position = 0
        while position < len(data) and not self.done:
            if self._state is _Chunk.DATA:
                taken = min(self._left, len(data) - position)
                self._left -= taken
                self.content += taken
                position += taken
                if self._left == 0:
                    self._state = _Chunk.DATA_END
            else:
                position = self._read_line(data, position)
        return position

    def _read_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position)
        piece = data[position:] if end < 0 else data[position : end + 1]
        self._line += piece
        if len(self._line) > MAX_LINE:
            raise FramingError("chunk line too long")
        if end < 0:
            return len(data)
        if not self._line.endswith(b"\r\n"):
            raise FramingError("bare LF in chunked body")
        line, self._line = self._line[:-2], b""
        self._on_line(line)
        return end + 1

    def _on_line(self, line: bytes) -> None:
        if self._state is _Chunk.SIZE:
            digits = line.partition(b";")[0].rstrip(b" \t")
            if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
                raise FramingError(f"chunk size {digits[:32]!r}")
            self._left = int(digits, 16)
            self._state = _Chunk.DATA if self._left else _Chunk.TRAILER
        elif self._state is _Chunk.DATA_END:
            if line:
                raise FramingError("data after a chunk's end")
            self._state = _Chunk.SIZE
        elif not line:
            self.done = True
        elif TRAILER.fullmatch(line) is None:
            raise FramingError("malformed trailer")  # another parser might take it for the start of something else


Body = NoBody | LengthBody | CloseBody | ChunkedBody
