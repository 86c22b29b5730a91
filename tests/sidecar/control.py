"""A control plane that serves what a test puts into it, over plain HTTP; built on devmesh.xds.rest's server half."""

import asyncio
import contextlib

from aiohttp import web

from devmesh.xds.rest import SIDECAR_TYPES, TYPE_URLS, DiscoveryRequest, DiscoveryResponse, is_due


class ControlPlane:
    def __init__(self):
        self.version, self.resources = "", {}
        self.requests, self.reports = [], []
        self.status = None
        self._sent = dict.fromkeys(TYPE_URLS, ("", ""))
        self._changed = asyncio.Event()
        self._nonces = 0

    def put(self, version, **resources):
        self.version, self.resources = version, resources
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def versions_acknowledged(self):
        """The last version each type said it runs."""
        return {name: [request.version for kind, request in self.requests if kind == name][-1:] for name in SIDECAR_TYPES}

    def errors(self):
        return {kind: request.error for kind, request in self.requests if request.error}

    async def _discovery(self, request):
        kind = request.match_info["type"]
        asked = DiscoveryRequest.parse(await request.json())
        self.requests.append((kind, asked))
        if self.status:
            return web.Response(status=self.status)
        seconds = int(request.headers["x-envoy-expected-rq-timeout-ms"]) / 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds / 2):
                while not (self.version and is_due(asked, self.version, *self._sent[kind])):
                    await self._changed.wait()
                return self._answer(kind)
        return web.Response(status=304)

    def _answer(self, kind):
        self._nonces += 1
        self._sent[kind] = (str(self._nonces), self.version)
        resources = tuple(self.resources.get(kind, ()))
        return web.json_response(DiscoveryResponse(self.version, str(self._nonces), resources, TYPE_URLS[kind]).to_json())

    async def _health(self, request):
        self.reports.append(await request.json())
        return web.json_response({})

    @contextlib.asynccontextmanager
    async def running(self, port=0):
        app = web.Application()
        app.router.add_post("/v3/discovery:{type}", self._discovery)
        app.router.add_post("/v1/health", self._health)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()
