"""The collector's two HTTP faces: OTLP/HTTP intake, and Jaeger's query API v3 with the trace page."""

import asyncio
import re
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from devmesh.collector import otlp, page
from devmesh.collector.store import Query, StoredTrace, TraceStore
from devmesh.localhttp import Handler, guard

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_SEARCH_DEPTH = 5_000
DEFAULT_SEARCH_DEPTH = 20
TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
INTAKE = "/v1/traces"


class BadQueryError(ValueError):
    """A parameter that cannot be read."""


class Collector:
    def __init__(self, token: str, store: TraceStore | None = None) -> None:
        self._token = token
        self._store = store or TraceStore(otlp.attributes_of)

    def otlp_app(self) -> web.Application:
        guarded = guard(self._token, open_writes=frozenset({INTAKE}))
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
        trace_id = request.match_info["trace_id"]
        if not TRACE_ID.fullmatch(trace_id):
            raise BadQueryError(f"malformed parameter trace_id: {trace_id!r} is not hexadecimal")
        trace = self._store.trace(trace_id.lower().zfill(32))
        return _found([trace] if trace else [])

    # The page's own

    async def _summaries(self, request: web.Request) -> web.Response:
        query = request.query
        limit = _depth(query.get("limit"))
        wanted = Query(service=query.get("service", ""), errors=query.get("errors") == "1", limit=limit)
        return _json({"traces": [_summary(trace) for trace in self._store.find(wanted)], "services": self._store.services()})


def parse_query(parameters: dict[str, str]) -> Query:
    """`query.service_name` or `query.serviceName` and so on; raises BadQueryError."""
    given = {_snake(name.removeprefix("query.")): value for name, value in parameters.items() if name.startswith("query.")}
    return Query(
        service=given.get("service_name", ""),
        operation=given.get("operation_name", ""),
        start_min=_time(given, "start_time_min"),
        start_max=_time(given, "start_time_max"),
        duration_min=_duration(given, "duration_min"),
        duration_max=_duration(given, "duration_max"),
        attributes=_attributes(given.get("attributes")),
        limit=_depth(given.get("search_depth") or given.get("num_traces")),
    )


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name)


def _time(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if not text:
        return None
    try:
        # A `+` in a query means a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise BadQueryError(f"malformed parameter query.{name}: {error}") from error
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _duration(given: dict[str, str], name: str) -> int | None:
    """Go's notation: `1.5s`, `1m30s`."""
    text = given.get(name)
    if not text:
        return None
    parts = DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise BadQueryError(f"malformed parameter query.{name}: invalid duration {text!r}")
    return int(sum(float(number) * NANOSECONDS[unit] for number, unit in parts))


def _attributes(text: str | None) -> dict[str, str]:
    try:
        given = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError as error:
        raise BadQueryError(f"malformed parameter query.attributes: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise BadQueryError("malformed parameter query.attributes: need a JSON object of strings")
    return given


def _depth(text: str | None) -> int:
    if not text:
        return DEFAULT_SEARCH_DEPTH
    if not text.isdecimal() or not 0 < int(text) <= MAX_SEARCH_DEPTH:
        raise BadQueryError(f"malformed parameter query.search_depth: need 1..{MAX_SEARCH_DEPTH}, not {text!r}")
    return int(text)


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
