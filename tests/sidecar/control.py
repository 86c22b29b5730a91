"""A control plane that answers aggregated polls with what a test puts into it, over plain HTTP; built on devmesh.xds.rest's server half."""

import asyncio
import contextlib

from aiohttp import web

from devmesh.xds.rest import SIDECAR_TYPES, TYPE_URLS, AggregatedResponse, DiscoveryResponse, aggregated_requests, is_due


class ControlPlane:
    def __init__(self):
        self.version, self.versions, self.resources = "", {}, {}
        self.requests, self.answered, self.nodes, self.reports = [], [], [], []
        self.status = None
        self._sent = dict.fromkeys(TYPE_URLS, ("", ""))
        self._changed = asyncio.Event()
        self._nonces = 0

    def put(self, version, versions=None, **resources):
        """`versions` are those of types that have one of their own."""
        self.version, self.versions, self.resources = version, versions or {}, resources
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def versions_acknowledged(self):
        """The last version each type said it runs."""
        return {name: [request.version for kind, request in self.requests if kind == name][-1:] for name in SIDECAR_TYPES}

    def errors(self):
        return {kind: request.error for kind, request in self.requests if request.error}

    async def _discovery(self, request):
        asked = aggregated_requests(body := await request.json())
        self.nodes.append(body["node"])
        self.requests += asked.items()
        if self.status:
            return web.Response(status=self.status)
        seconds = int(request.headers["x-envoy-expected-rq-timeout-ms"]) / 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds / 2):
                while not (due := self._due(asked)):
                    await self._changed.wait()
                answer = AggregatedResponse(self.version, {kind: self._response(kind) for kind in due})
                self.answered.append(due)
                return web.json_response(answer.to_json())
        return web.Response(status=304)

    def _version(self, kind):
        return self.versions.get(kind, self.version)

    def _due(self, asked):
        return [kind for kind, one in asked.items() if self.version and is_due(one, self._version(kind), *self._sent[kind])]

    def _response(self, kind):
        self._nonces += 1
        self._sent[kind] = (str(self._nonces), self._version(kind))
        return DiscoveryResponse(self._version(kind), str(self._nonces), tuple(self.resources.get(kind, ())), TYPE_URLS[kind])

    async def _health(self, request):
        self.reports.append(await request.json())
        return web.json_response({})

    @contextlib.asynccontextmanager
    async def running(self, port=0):
        app = web.Application()
        app.router.add_post("/v3/discovery:aggregated", self._discovery)
        app.router.add_post("/v1/health", self._health)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()
