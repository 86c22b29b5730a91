"""The app and the collector of a bench run: a fixed answer of 66 bytes to every request. `python -m tests.bench.backend PORT`."""

from __future__ import annotations

import asyncio
import sys

import uvloop

BODY = b"x" * 66
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 66\r\n\r\n" + BODY


class Fixed(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._skip = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a socket transport; uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            taken = min(self._skip, len(self._buffer))
            self._buffer, self._skip = self._buffer[taken:], self._skip - taken
            end = self._buffer.find(b"\r\n\r\n")
            if self._skip or end < 0:
                return
            head, self._buffer = self._buffer[:end].lower(), self._buffer[end + 4 :]
            _, found, after = head.partition(b"content-length: ")
            self._skip = int(after.partition(b"\r\n")[0]) if found else 0
            assert self._transport is not None
            self._transport.write(ANSWER)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
