"""Traces for tests, and devmesh's collector on free ports."""

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass

from devmesh.collector.server import serve

TOKEN = "t0ken"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Urls:
    otlp: str
    query: str


@contextlib.asynccontextmanager
async def collector():
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ready = asyncio.Event()
    running = asyncio.create_task(serve(*listening, TOKEN, ready.set))
    await ready.wait()
    urls = [f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in listening]
    try:
        yield Urls(f"{urls[0]}/v1/traces", urls[1])
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await running


def span(span_id, name, start, seconds, trace_id=TRACE, **more):
    end = start + int(seconds * 1e9)
    values = {"traceId": trace_id, "spanId": span_id, "name": name, "startTimeUnixNano": str(start), "endTimeUnixNano": str(end)}
    return values | more


def request(**by_service):
    """An OTLP JSON request: keyword = service name, value = its spans."""
    named = {name: [{"key": "service.name", "value": {"stringValue": name}}] for name in by_service}
    return {
        "resourceSpans": [
            {"resource": {"attributes": named[name]}, "scopeSpans": [{"scope": {"name": "test"}, "spans": spans}]}
            for name, spans in by_service.items()
        ]
    }


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}
