"""What every Bookinfo service shares: where it listens, how it calls the next one, its own spans. Knows nothing of a mesh."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from aiohttp import ClientSession, ClientTimeout, TraceConfig, web

# Bookinfo forwards these so that a trace stays one tree (istio.io "Distributed tracing").
FORWARDED = (
    "x-request-id", "x-ot-span-context", "x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority", "traceparent", "tracestate",
    "x-cloud-trace-context", "grpc-trace-bin", "sw8", "user-agent", "cookie", "authorization", "jwt", "x-b3-traceid", "x-b3-spanid",
    "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "b3", "end-user",
)  # fmt: skip
SESSION: web.AppKey[ClientSession] = web.AppKey("session", ClientSession)
POD = os.environ.get("POD_NAME") or socket.gethostname()
CLUSTER = os.environ.get("CLUSTER_NAME", "null")
_tracer: list[object] = []


def forwarded(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in FORWARDED if name in request.headers}


async def get(request: web.Request, url: str, *, seconds: float, headers: dict[str, str] | None = None) -> tuple[int, object]:
    """GET with a client span below the server's; the body parsed as JSON, None when it is not."""
    session = request.app[SESSION]
    sent = {**forwarded(request), **(headers or {})}
    with span(f"GET {url.split('/')[2]}", "client", request.get("context")) as current:
        inject(current, sent)
        async with session.get(url, headers=sent, timeout=ClientTimeout(total=seconds)) as response:
            try:
                return response.status, await response.json(content_type=None)
            except ValueError:
                return response.status, None


class span:  # noqa: N801 - reads as a statement
    """A span when the SDK is there, nothing before it is: it loads beside the first requests, not in front of them."""

    def __init__(self, name: str, kind: str, context: object = None) -> None:
        self._name, self._kind, self._context, self._span = name, kind, context, None

    def __enter__(self) -> object:
        if _tracer:
            from opentelemetry.trace import SpanKind

            kind = SpanKind.CLIENT if self._kind == "client" else SpanKind.SERVER
            self._span = _tracer[0].start_span(self._name, context=self._context, kind=kind)  # type: ignore[attr-defined]
        return self._span

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._span is not None:
            if error is not None:
                from opentelemetry.trace import StatusCode

                self._span.set_status(StatusCode.ERROR, type(error).__name__)
            self._span.end()


def inject(current: object, headers: dict[str, str]) -> None:
    if current is not None:
        from opentelemetry import propagate, trace

        headers.pop("traceparent", None)
        propagate.inject(headers, trace.set_span_in_context(current))  # type: ignore[arg-type]


@web.middleware
async def traced(request: web.Request, handler: Callable) -> web.StreamResponse:
    context = None
    if _tracer:
        from opentelemetry import propagate, trace

        context = propagate.extract({k.lower(): v for k, v in request.headers.items()})
    with span(
        f"{request.method} {request.match_info.route.resource.canonical if request.match_info.route.resource else 'unknown'}",
        "server",
        context,
    ) as current:
        if current is not None:
            request["context"] = trace.set_span_in_context(current)
        return await handler(request)


def _load_tracing() -> None:
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", POD)
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.instance.id": POD}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces"), schedule_delay_millis=200))
    _tracer.append(provider.get_tracer("bookinfo"))


async def _session(app: web.Application):
    async with ClientSession(trust_env=True, trace_configs=[TraceConfig()]) as session:
        app[SESSION] = session
        yield


def application(*routes: web.RouteDef) -> web.Application:
    app = web.Application(middlewares=[traced])
    app.cleanup_ctx.append(_session)
    app.add_routes(routes)
    return app


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None, handle_signals=True, shutdown_timeout=1)
    await runner.setup()
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9080"))
    await web.TCPSite(runner, host, port).start()
    print(f"{POD} listens on {host}:{port}", flush=True)
    threading.Thread(target=_load_tracing, daemon=True, name="tracing").start()
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def run(app: web.Application) -> None:
    try:
        asyncio.run(_serve(app))
    except web.GracefulExit:
        sys.exit(0)
    except OSError as error:
        print(f"{POD} cannot listen: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def now() -> float:
    return time.monotonic()
