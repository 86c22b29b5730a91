"""What every sample service shares: where it listens, how it calls the next one. Knows nothing of a mesh."""

import asyncio
import os
import signal
import socket
import sys

import tracing
from aiohttp import ClientSession, ClientTimeout, web
from yarl import URL

# What Bookinfo passes on so that a trace stays one tree and a session one session (istio.io, "Trace context propagation").
FORWARDED = (
    "x-request-id", "x-ot-span-context", "x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority", "traceparent", "tracestate",
    "x-cloud-trace-context", "grpc-trace-bin", *tracing.B3, "sw8", "end-user", "user-agent", "cookie", "authorization", "jwt",
)  # fmt: skip
SESSION = web.AppKey("session", ClientSession)
SPAN = "span"
POD = os.environ.get("POD_NAME") or socket.gethostname()
CLUSTER = os.environ.get("CLUSTER_NAME", "null")  # what Istio's images say when nobody told them


async def get(request, url, *, seconds, headers=None):
    """GET as part of answering `request`: its trace goes along; (status, JSON or None). Raises TimeoutError and ClientError."""
    sent = {name: request.headers[name] for name in FORWARDED if name in request.headers} | (headers or {})
    target = URL(url)
    with tracing.client_span(request.get(SPAN), "GET", target, sent) as span:
        async with request.app[SESSION].get(target, headers=sent, timeout=ClientTimeout(total=seconds)) as response:
            tracing.answered(span, response.status, 400)
            try:
                return response.status, await response.json(content_type=None)
            except ValueError:
                return response.status, None


@web.middleware
async def _traced(request, handler):
    resource = request.match_info.route.resource
    route = resource.canonical if resource else "unmatched"
    with tracing.server_span(request.method, route, request.path, request.headers) as span:
        request[SPAN] = span
        try:
            response = await handler(request)
        except web.HTTPException as error:
            tracing.answered(span, error.status, 500)
            raise
        tracing.answered(span, response.status, 500)
        return response


async def _session(app):
    async with ClientSession(trust_env=True) as session:
        app[SESSION] = session
        yield


def application(*routes, middlewares=()):
    app = web.Application(middlewares=[_traced, *middlewares])
    app.cleanup_ctx.append(_session)
    app.add_routes(routes)
    return app


async def _serve(app, name, default_port):
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", str(default_port)))
    await web.TCPSite(runner, host, port).start()
    address = runner.addresses[0]
    print(f"{POD} listens on {address[0]}:{address[1]}", flush=True)
    tracing.load_in_background(name)
    await stop.wait()
    await runner.cleanup()
    tracing.close()


def run(app, name, default_port=9080):
    """Serve `app` on HOST:PORT until SIGTERM; exit status 1 when it cannot listen."""
    try:
        asyncio.run(_serve(app, name, default_port))
    except OSError as error:
        sys.exit(f"{POD} cannot listen: {error}")
