"""A caller and servers for tests of pools."""

import asyncio
import contextlib
import random
import time

import pytest_asyncio

from devmesh.sidecar.config import Endpoint
from devmesh.sidecar.tls import Contexts
from devmesh.sidecar.upstream import Upstreams
from devmesh.sidecar.upstream_connection import Caller

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Attempt(Caller):
    """A caller that asks as soon as it is connected and keeps what it is told."""

    def __init__(self):
        self.connection, self.ended, self.failure = None, asyncio.Event(), ""
        self.started = asyncio.Event()

    def connected(self, connection):
        self.connection = connection
        connection.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.request_sent = True
        self.started.set()

    def response_head(self, head, body):
        pass

    def response_data(self, data):
        pass

    def response_end(self):
        self.ended.set()

    def failed(self, failure, details):
        self.failure = details
        self.ended.set()


class Server:
    """Answers a request when `answer` is set."""

    def __init__(self):
        self.answer, self.requests = asyncio.Event(), 0

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await self.answer.wait()
                writer.write(OK)
                await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def servers():
    both = [Server(), Server()]
    async with contextlib.AsyncExitStack() as stack:
        listening = [await stack.enter_async_context(await asyncio.start_server(one.serve, "127.0.0.1", 0)) for one in both]
        yield both, [Endpoint("127.0.0.1", one.sockets[0].getsockname()[1]) for one in listening]
        for one in both:
            one.answer.set()


def upstreams(dial=None, dialer=None):
    return Upstreams(Contexts(None, lambda _: None), dial or {}, time.monotonic, random.Random(1), dialer)
