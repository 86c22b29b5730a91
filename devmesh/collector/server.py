"""The collector's two HTTP faces: OTLP/HTTP intake, and Jaeger's query API (v3 here, v1 in jaeger_v1) with the trace page."""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from devmesh.collector import otlp, page
from devmesh.collector.jaeger_v1 import JaegerV1
from devmesh.collector.parameters import BadQueryError, depth, parse_query, trace_id
from devmesh.collector.store import Query, StoredTrace, TraceStore
from devmesh.localhttp import Handler, guard
from devmesh.pods.names import HOST_GATEWAY_NAME

MAX_BODY_BYTES = 4 * 1024 * 1024
INTAKE = "/v1/traces"


class Collector:
    def __init__(self, token: str, store: TraceStore | None = None) -> None:
        self._token = token
        self._store = store or TraceStore(otlp.attributes_of)

    def otlp_app(self) -> web.Application:
        # An app in a pod reaches this as `host.docker.internal`; ICANN keeps `.internal` for private use, so no page has it.
        guarded = guard(self._token, open_writes=frozenset({INTAKE}), names=(HOST_GATEWAY_NAME,))
        app = web.Application(middlewares=[guarded], client_max_size=MAX_BODY_BYTES)
        app.router.add_post(INTAKE, self._intake)
        return app

    def query_app(self) -> web.Application:
        app = web.Application(middlewares=[guard(self._token), _refusals])
        app.router.add_get("/", _page)
        app.router.add_get("/api/v3/services", self._services)
        app.router.add_get("/api/v3/operations", self._operations)
        app.router.add_get("/api/v3/traces", self._find)
        app.router.add_get("/api/v3/traces/{trace_id}", self._trace)
        JaegerV1(self._store).add_routes(app)
        app.router.add_get("/api/devmesh/traces", self._summaries)
        return app

    # Intake

    async def _intake(self, request: web.Request) -> web.Response:
        content_type = request.content_type
        if content_type not in (otlp.PROTOBUF, otlp.JSON):
            supported = f"[{otlp.JSON}, {otlp.PROTOBUF}]"
            return web.Response(status=415, text=f"415 unsupported media type, supported: {supported}")
        try:
            body = otlp.decompress(await request.read(), request.headers.get("Content-Encoding", ""), MAX_BODY_BYTES)
            spans, refused = otlp.decode(body, content_type)
        except otlp.TooLargeError:
            return web.Response(status=413, text=f"Maximum request body size {MAX_BODY_BYTES} exceeded.")
        except otlp.BadBodyError as error:
            return web.Response(status=400, text=f"not an OTLP trace request: {error}\n")
        refused += self._store.add(spans)
        answer = otlp.encode_response(content_type, refused, "invalid ids, or the trace is full")
        return web.Response(body=answer, content_type=content_type)

    # Jaeger's API v3

    async def _services(self, _: web.Request) -> web.Response:
        return _json({"services": self._store.services()})

    async def _operations(self, request: web.Request) -> web.Response:
        query = request.query
        found = self._store.operations(query.get("service", ""), query.get("span_kind") or query.get("spanKind", ""))
        return _json({"operations": [{"name": name, "spanKind": kind, "span_kind": kind} for name, kind in found]})

    async def _find(self, request: web.Request) -> web.Response:
        return _found(self._store.find(parse_query(dict(request.query))))

    async def _trace(self, request: web.Request) -> web.Response:
        trace = self._store.trace(trace_id(request.match_info["trace_id"]))
        return _found([trace] if trace else [])

    # The page's own

    async def _summaries(self, request: web.Request) -> web.Response:
        query = request.query
        limit = depth(query.get("limit"))
        wanted = Query(service=query.get("service", ""), errors=query.get("errors") == "1", limit=limit)
        return _json({"traces": [_summary(trace) for trace in self._store.find(wanted)], "services": self._store.services()})


def _found(traces: list[StoredTrace]) -> web.Response:
    if not traces:
        return _error(404, "No traces found")
    spans = [span for trace in traces for span in sorted(trace.spans.values(), key=lambda span: span.start)]
    return _json({"result": {"resourceSpans": otlp.resource_spans(spans)}})


def _summary(trace: StoredTrace) -> dict[str, Any]:
    root = trace.root()
    return {
        "traceId": trace.trace_id,
        "startUnixMicros": trace.start // 1000,
        "durationMicros": (trace.end - trace.start) / 1000,
        "service": root.service,
        "operation": root.name,
        "spans": len(trace.spans),
        "services": sorted(trace.services),
        "error": trace.error,
    }


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadQueryError as error:
        return _error(400, str(error))


def _error(status: int, message: str) -> web.Response:
    return _json({"error": {"httpCode": status, "message": message}}, status)


def _json(value: Any, status: int = 200) -> web.Response:
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json", headers=headers)


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=page.HTML, content_type="text/html", headers=page.HEADERS)


async def serve(otlp_sock: socket.socket, query_sock: socket.socket, token: str, ready: Callable[[], None]) -> None:
    """Serve on already bound sockets until SIGTERM or SIGINT; `ready()` is called once both answer."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    collector = Collector(token)
    faces = ((collector.otlp_app(), otlp_sock), (collector.query_app(), query_sock))
    # aiohttp's own decompression answers 500 to a broken body.
    runners = [(web.AppRunner(app, access_log=None, shutdown_timeout=0.1, auto_decompress=False), sock) for app, sock in faces]
    try:
        for runner, sock in runners:
            await runner.setup()
            await web.SockSite(runner, sock).start()
        ready()
        await stop.wait()
    finally:
        for runner, _ in runners:
            await runner.cleanup()
