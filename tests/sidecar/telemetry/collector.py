"""A collector for tests: takes OTLP/HTTP, answers what it is told to."""

import asyncio
import contextlib

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    def __init__(self):
        self.statuses = []  # answers to come; 200 afterwards
        self.sizes = []  # spans of each request that was taken
        self.types = set()
        self.requests = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._changed = asyncio.Condition()
        self.url = ""

    async def _take(self, request):
        body = await request.read()
        await self.hold.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        async with self._changed:
            self.requests += 1
            if status == 200:
                self.types.add(request.content_type)
                decoded = ExportTraceServiceRequest.FromString(body)
                self.sizes.append(sum(len(scope.spans) for resource in decoded.resource_spans for scope in resource.scope_spans))
            self._changed.notify_all()
        return web.Response(status=status)

    async def until(self, condition):
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)


@contextlib.asynccontextmanager
async def collector():
    found = Collector()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/traces", found._take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield found
    finally:
        found.hold.set()
        await runner.cleanup()
