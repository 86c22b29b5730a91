"""The control plane's two listeners (xDS over mTLS, admin) and the parts that live and die with them."""

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from devmesh.ca.address import CaAddress
from devmesh.ca.client import WorkloadIdentity, spiffe_ids_of
from devmesh.ca.identity import SpiffeId
from devmesh.config.topology import Workload
from devmesh.controlplane.admin import Admin
from devmesh.controlplane.compile import compile_all
from devmesh.controlplane.push import Pushes
from devmesh.controlplane.registrar import Registrar
from devmesh.controlplane.state import DEFAULT_TTL, Compile, State
from devmesh.controlplane.watch import RegistryWatch
from devmesh.localhttp import Handler
from devmesh.registry.client import Registry
from devmesh.telemetry_setup import Telemetry
from devmesh.xds.rest import AGGREGATED, DiscoveryRequest, MalformedError, aggregated_requests
from devmesh.xds.snapshot import TYPES

log = logging.getLogger(__name__)
# Without x-envoy-expected-rq-timeout-ms; Envoy's own request_timeout defaults to 1 s, our sidecar always sends the header.
DEFAULT_HOLD = 25.0
MAX_HOLD = 600.0
HOLD_MARGIN = 1.0
MAX_REQUEST_BYTES = 1 << 20
NODE_TYPES = frozenset({"sidecar", "router"})
"""Stamped on a request that has been admitted."""
WORKLOAD: web.RequestKey[Workload] = web.RequestKey("workload", Workload)
BODY: web.RequestKey[Mapping[str, Any]] = web.RequestKey("body", Mapping)


@dataclass(frozen=True, slots=True)
class NodeId:
    """`sidecar~<ip>~<workload>.<namespace>~<namespace>.svc.cluster.local`."""

    type: str
    ip: str
    workload: str
    namespace: str

    @classmethod
    def parse(cls, text: str) -> "NodeId":
        """ValueError for anything else."""
        kind, ip, name, _ = text.split("~")
        workload, _, namespace = name.rpartition(".")
        if kind not in NODE_TYPES or not workload or not namespace:
            raise ValueError(f"node.id {text!r} is not sidecar|router~ip~workload.namespace~domain")
        return cls(kind, ip, workload, namespace)


def peer_spiffe_ids(request: web.Request) -> list[str]:
    """Give the URI SANs of the client's certificate, which the TLS handshake has verified."""
    return spiffe_ids_of(request.transport.get_extra_info("peercert")) if request.transport else []


def hold_seconds(request: web.Request) -> float:
    """How long to hold a poll: a second less than the client waits, so that it gets a 304 and not its own timeout."""
    header = request.headers.get("x-envoy-expected-rq-timeout-ms", "")
    expected = float(header) / 1000 if header.isdigit() else DEFAULT_HOLD + HOLD_MARGIN
    return min(max(expected - HOLD_MARGIN, expected / 2), MAX_HOLD)


class XdsServer:
    """The 15012 routes. Every request names its node and must come with that workload's certificate."""

    def __init__(self, state: State, pushes: Pushes, registrar: Registrar) -> None:
        self._state = state
        self._pushes = pushes
        self._registrar = registrar

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._admit], client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/v3/discovery:{type}", self._discovery)
        app.router.add_post("/v1/health", self._health)
        return app

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not await self._is_synced(hold_seconds(request)):
            return web.Response(status=503, headers={"retry-after": "1"}, text="the control plane has not read the registry yet\n")
        try:
            request[BODY] = orjson.loads(await request.read())
            workload = self._workload(request, peer_spiffe_ids(request))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return web.Response(status=400, text=f"not a discovery request: {error}\n")
        if isinstance(workload, str):
            log.warning("refused %s: %s", request.path, workload)
            return web.Response(status=403, text=f"{workload}\n")
        request[WORKLOAD] = workload
        return await handler(request)

    async def _is_synced(self, seconds: float) -> bool:
        """Hold early requests too: after our restart the sidecars come before the registry has been read."""
        if not self._state.synced.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._state.synced.wait(), seconds)
        return self._state.synced.is_set()

    def _workload(self, request: web.Request, identities: list[str]) -> Workload | str:
        """Give the workload that may speak, or why it may not. A health report without a node is its certificate's only workload."""
        node = request[BODY].get("node")
        node_id = node["id"] if node else request.headers.get("x-devmesh-node", "")
        if not node_id:
            return self._only_workload(identities)
        named = NodeId.parse(node_id)
        workload = self._state.workload(named.workload)
        if workload is None or workload.namespace != named.namespace:
            return f"no workload {named.workload} in namespace {named.namespace}"
        if workload.spiffe_id not in identities:
            return f"{named.workload} is {workload.spiffe_id}, the certificate says {', '.join(identities) or 'nothing'}"
        return workload

    def _only_workload(self, identities: list[str]) -> Workload | str:
        topology = self._state.topology
        owners = [workload for workload in topology.workloads if workload.spiffe_id in identities] if topology else []
        if len(owners) == 1:
            return owners[0]
        return f"say which workload it is (node.id): {len(owners)} have the identity {', '.join(identities) or 'nothing'}"

    async def _discovery(self, request: web.Request) -> web.Response:
        kind = request.match_info["type"]
        if kind != AGGREGATED and kind not in TYPES:
            return web.Response(status=404, text=f"types are {', '.join((*TYPES, AGGREGATED))}\n")
        try:
            asked = aggregated_requests(request[BODY]) if kind == AGGREGATED else {kind: DiscoveryRequest.parse(request[BODY])}
        except MalformedError as error:
            return web.Response(status=400, text=f"{error}\n")
        name = request[WORKLOAD].name
        self._registrar.connected(name)
        if name not in self._pushes.proxies:
            return web.Response(status=503, headers={"retry-after": "1"}, text=f"{name} has no configuration yet\n")
        reply = await self._pushes.poll(name, asked, hold_seconds(request))
        if reply is None:
            return web.Response(status=304)
        body = (reply if kind == AGGREGATED else reply.responses[kind]).to_json()
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        name, body = request[WORKLOAD].name, request[BODY]
        healthy, detail = bool(body["healthy"]), str(body.get("detail") or "")
        proxy = self._pushes.proxies.get(name)
        if proxy is not None:
            proxy.healthy, proxy.detail, proxy.restarts = healthy, detail, int(body.get("restarts") or 0)
            proxy.h2_ports = tuple(int(port) for port in body.get("h2_ports") or ())
            proxy.calls_out = bool(body.get("calls_out"))
            proxy.sidecar_version = str(body["version"]) if body.get("version") else None
            proxy.last_seen = self._pushes.clock()
        self._registrar.report(name, healthy=healthy, detail=detail)
        return web.json_response({})


class ControlPlane:
    """All parts on one loop; as an async context manager it runs until its end or until a part fails."""

    def __init__(
        self,
        registry: Registry,
        token: str,
        compile_all: Compile,
        *,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.pushes = Pushes(clock)
        self.watch = RegistryWatch(registry, clock=clock)
        self.state = State(self.watch, self.pushes, compile_all, ttl=ttl, clock=clock, telemetry=telemetry)
        self.registrar = Registrar(registry, self.watch, self.state, self.pushes)
        self.xds = XdsServer(self.state, self.pushes, self.registrar)
        self.admin = Admin(registry, token, self.watch, self.state, self.pushes)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watch.run(), name="registry watch")
            tasks.create_task(self.state.run(), name="compile")
            tasks.create_task(self.registrar.run(), name="registrar")


async def listen(app: web.Application, sock: socket.socket, context: ssl.SSLContext | None = None) -> web.AppRunner:
    """Serve on a bound socket. A poll whose client went away is cancelled at once: that is how a dead sidecar is noticed."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=context).start()
    return runner


@asynccontextmanager
async def running(
    plane: ControlPlane, xds_sock: socket.socket, admin_sock: socket.socket, context: Callable[[], Awaitable[ssl.SSLContext]]
) -> AsyncIterator[None]:
    """Both listeners up and all parts running. The admin one answers (not ready) while `context` still waits for a certificate."""
    admin = await listen(plane.admin.app(), admin_sock)
    try:
        async with asyncio.TaskGroup() as tasks:
            parts = tasks.create_task(plane.run(), name="control plane")
            xds = await listen(plane.xds.app(), xds_sock, await context())
            try:
                yield
            finally:
                parts.cancel()
                await xds.cleanup()
    finally:
        await admin.cleanup()


async def until_signalled() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def serve(
    xds_sock: socket.socket,
    admin_sock: socket.socket,
    registry_url: str,
    token: str,
    ca: Mapping[str, str],
    spiffe_id: str,
    ready: Callable[[], None],
    otlp_url: str | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. `ca` is `{url, root_file, token_file}`; `ready` is called when both listeners answer.

    A registry or CA that is not there yet is waited for; `/healthz/ready` says when the registry has been read.
    """
    telemetry = Telemetry("devmesh-control", otlp_url)
    telemetry.start()
    address = CaAddress(ca["url"], Path(ca["root_file"]), Path(ca["token_file"]))
    identity = WorkloadIdentity(address, SpiffeId.parse(spiffe_id))
    identity.start()

    async def context() -> ssl.SSLContext:
        await identity.ready()
        return identity.server_context()

    try:
        async with Registry(registry_url, token) as registry:
            plane = ControlPlane(registry, token, compile_all, telemetry=telemetry)
            async with running(plane, xds_sock, admin_sock, context):
                ready()
                await until_signalled()
    finally:
        await identity.close()
        telemetry.shutdown()
