"""Jaeger's query API v1 (cmd/query/app/http_handler.go), which its UI and most existing clients speak."""

import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from devmesh.collector.jaeger_json import short_trace_id, trace_json
from devmesh.collector.parameters import BadQueryError, parse_dependencies, parse_v1, trace_id
from devmesh.collector.store import StoredTrace, TraceStore
from devmesh.localhttp import Handler

NOT_FOUND = "trace not found"


class JaegerV1:
    def __init__(self, store: TraceStore, now: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._now = now

    def add_routes(self, app: web.Application) -> None:
        routes = {
            "/api/services": self._services,
            "/api/services/{service}/operations": self._names,
            "/api/operations": self._operations,
            "/api/traces": self._find,
            "/api/traces/{trace_id}": self._trace,
            "/api/dependencies": self._dependencies,
        }
        for path, handler in routes.items():
            app.router.add_get(path, _refusing(handler))

    async def _services(self, _: web.Request) -> web.Response:
        return _listed(self._store.services())

    async def _names(self, request: web.Request) -> web.Response:
        found = self._store.operations(request.match_info["service"])
        return _listed(sorted({name for name, _ in found}))

    async def _operations(self, request: web.Request) -> web.Response:
        service = request.query.get("service", "")
        if not service:
            raise BadQueryError("parameter 'service' is required")
        found = self._store.operations(service, request.query.get("spanKind", ""))
        # v3 says "unspecified" where v1 says nothing.
        return _listed([{"name": name, "spanKind": "" if kind == "unspecified" else kind} for name, kind in found])

    async def _find(self, request: web.Request) -> web.Response:
        ids = request.query.getall("traceID", ())
        if not ids:
            return _traces(self._store.find(parse_v1(request.query, self._now())))
        found = {one: self._store.trace(trace_id(one)) for one in ids}
        missing = [{"msg": NOT_FOUND, "traceID": short_trace_id(trace_id(one))} for one, trace in found.items() if trace is None]
        return _traces([trace for trace in found.values() if trace is not None], missing)

    async def _trace(self, request: web.Request) -> web.Response:
        trace = self._store.trace(trace_id(request.match_info["trace_id"]))
        return _traces([trace]) if trace else _error(404, NOT_FOUND)

    async def _dependencies(self, request: web.Request) -> web.Response:
        service = request.query.get("service", "")
        calls = self._store.calls(*parse_dependencies(request.query, self._now()))
        links = [
            {"parent": parent, "child": child, "callCount": count}
            for (parent, child), count in sorted(calls.items())
            if service in ("", parent, child)
        ]
        return _answer(links)


def _refusing(handler: Handler) -> Handler:
    async def refusing(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadQueryError as error:
            return _error(400, str(error))

    return refusing


def _traces(traces: list[StoredTrace], errors: list[dict[str, Any]] | None = None) -> web.Response:
    # As text at once, for the reason that otlp.resource_spans gives.
    return _answer([orjson.Fragment(orjson.dumps(trace_json(trace))) for trace in traces], errors=errors or None)


def _listed(data: list[Any]) -> web.Response:
    return _answer(data, total=len(data))


def _error(status: int, message: str) -> web.Response:
    return _answer(None, errors=[{"code": status, "msg": message}], status=status)


def _answer(data: Any, *, total: int = 0, errors: list[dict[str, Any]] | None = None, status: int = 200) -> web.Response:
    body = orjson.dumps({"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors})
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
