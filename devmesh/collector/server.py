"""OTLP/HTTP in on one socket, Jaeger's query API v3 and the trace page out on the other."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
from aiohttp import web

from devmesh.collector import otlp
from devmesh.collector.store import Query, Store, Trace
from devmesh.localhttp import guard

MAX_BODY = 4 * 1024 * 1024
INTAKE = "/v1/traces"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
NANOSECONDS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}


class Collector:
    def __init__(self, token: str, store: Store | None = None) -> None:
        self.store = store or Store()
        self._token = token

    def intake(self) -> web.Application:
        app = web.Application(middlewares=[guard(self._token, open_writes=frozenset({INTAKE}))], client_max_size=MAX_BODY)
        app.router.add_post(INTAKE, self._receive)
        return app

    def query(self) -> web.Application:
        app = web.Application(middlewares=[guard(self._token)])
        app.router.add_get("/", self._page)
        app.router.add_get("/api/v3/services", self._services)
        app.router.add_get("/api/v3/operations", self._operations)
        app.router.add_get("/api/v3/traces", self._traces)
        app.router.add_get("/api/v3/traces/{id}", self._trace)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        content_type = request.content_type
        if content_type not in ("application/json", "application/x-protobuf"):
            return web.json_response({"message": f"content type {content_type} is neither protobuf nor JSON"}, status=415)
        try:
            value = otlp.parse(await request.read(), content_type)
            found = list(otlp.spans(value))
        except otlp.BadTraces as error:
            return web.json_response({"message": str(error)}, status=400)
        for span in found:
            self.store.add(span)
        body = b"{}" if content_type == "application/json" else b""
        return web.Response(body=body, content_type=content_type)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(body=PAGE.read_bytes(), content_type="text/html", headers=PAGE_HEADERS)

    async def _services(self, _: web.Request) -> web.Response:
        return _json({"services": self.store.services()})

    async def _operations(self, request: web.Request) -> web.Response:
        service = request.query.get("service", "")
        if not service:
            return _error(400, "service is needed")
        kind = request.query.get("span_kind") or request.query.get("spanKind")
        return _json({"operations": [{"name": name, "spanKind": one} for name, one in self.store.operations(service, kind)]})

    async def _traces(self, request: web.Request) -> web.Response:
        try:
            query = parse_query(dict(request.query))
        except ValueError as error:
            return _error(400, str(error))
        found = [span for trace in self.store.find(query) for span in trace.spans.values()]
        return _json({"result": otlp.render(found)})

    async def _trace(self, request: web.Request) -> web.Response:
        trace: Trace | None = self.store.get(request.match_info["id"].lower().rjust(32, "0"))
        if trace is None:
            return _error(404, "trace not found")
        return _json({"result": otlp.render(list(trace.spans.values()))})


PAGE = Path(__file__).with_name("page.html")


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"httpCode": status, "message": message}}, status=status)


def parse_query(given: dict[str, str]) -> Query:
    """Jaeger's parameters, snake_case or camelCase, with or without `query.`. Raises ValueError."""
    values = {re.sub(r"(?<!^)([A-Z])", r"_\1", key.removeprefix("query.")).lower(): value for key, value in given.items()}
    attributes = orjson.loads(values["attributes"]) if values.get("attributes") else {}
    if not isinstance(attributes, dict):
        raise ValueError("attributes must be a JSON object")  # noqa: TRY004 - the client's mistake, answered with 400
    return Query(
        service=values.get("service_name") or None,
        operation=values.get("operation_name") or None,
        attributes={str(key): str(value) for key, value in attributes.items()},
        start_min=_time(values.get("start_time_min")),
        start_max=_time(values.get("start_time_max")),
        duration_min=_duration(values.get("duration_min")),
        duration_max=_duration(values.get("duration_max")),
        limit=int(values.get("search_depth") or values.get("num_traces") or 100),
    )


def _time(text: str | None) -> int | None:
    """RFC 3339 in ns since the epoch."""
    if not text:
        return None
    parsed = datetime.fromisoformat(text)
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1_000_000) * 1000


def _duration(text: str | None) -> int | None:
    if not text:
        return None
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    return int(float(match[1]) * NANOSECONDS[match[2]])


async def serve(otlp_sock: socket.socket, query_sock: socket.socket, token: str, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT."""
    collector = Collector(token)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runners = []
    for app, sock in ((collector.intake(), otlp_sock), (collector.query(), query_sock)):
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, sock).start()
        runners.append(runner)
    ready()
    await stop.wait()
    for runner in runners:
        await runner.cleanup()
