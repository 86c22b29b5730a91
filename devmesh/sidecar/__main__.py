"""A sidecar's life: identity, data path, conversation with the control plane, admin; until SIGTERM, then drain.

`python -m devmesh.sidecar bootstrap.json` runs one by itself; the launcher calls `run` in a forked child.
"""

import asyncio
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from devmesh import __version__
from devmesh.ca.client import WorkloadIdentity
from devmesh.open_files import allow_many
from devmesh.pods.network import INBOUND_SOURCE
from devmesh.sidecar.admin import Admin
from devmesh.sidecar.agent import Agent
from devmesh.sidecar.bootstrap import ADMIN_ROLES, DATA_ROLES, Bootstrap, Listening, Xds
from devmesh.sidecar.config import ProxyConfig
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.dialer import Dialer, PodDialer
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.names import serving
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.running import ProxyIdentity, Running
from devmesh.sidecar.telemetry.recorder import Telemetry
from devmesh.sidecar.telemetry.spans import Workload as SpanSource

log = logging.getLogger(__name__)
# What requests in flight get at SIGTERM; Istio's terminationDrainDuration.
DRAIN_SECONDS = 5.0
BACKLOG = 1024


def open_socket(listening: Listening) -> SocketSpec:
    """Take the inherited descriptor, or bind when there is none."""
    sock = socket.socket(fileno=listening.fd) if listening.fd is not None else _bind(listening.address, listening.port)
    address, port = sock.getsockname()[:2]
    return SocketSpec(listening.role, address, port, sock, listening.original)


def _bind(address: str, port: int) -> socket.socket:
    """`::` means IPv6 only: a socket of both families would show IPv4 peers as ::ffff:10.0.0.1, in logs and to policies."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=BACKLOG)


def build(bootstrap: Bootstrap, dialer: Dialer | None = None) -> Running:
    """Put the parts together; nothing runs yet."""
    workload = bootstrap.workload
    metadata = bootstrap.node.metadata
    source = SpanSource(
        workload.name, workload.service, workload.version, workload.namespace, bootstrap.node.id, str(metadata.get("MESH_ID", ""))
    )
    app = str((metadata.get("LABELS") or {}).get("app") or workload.service)
    settings = bootstrap.telemetry
    spiffe_id = str(workload.spiffe_id)
    telemetry = Telemetry(source, app, spiffe_id, settings.otlp_url, settings.access_log_file, settings.access_log_encoding)
    identity = WorkloadIdentity(bootstrap.ca, workload.spiffe_id) if bootstrap.ca else None
    proxy = Proxy(
        spiffe_id=spiffe_id,
        identity=ProxyIdentity(identity) if identity else None,
        telemetry=telemetry,
        dial=dict(bootstrap.dial),
        peer_metadata=telemetry.peer_metadata,
        gateway=workload.gateway,
        dialer=dialer,
        excluded=bootstrap.excluded,
        files=bootstrap.files,
    )
    telemetry.bind(proxy.cluster)
    return Running(bootstrap, proxy, telemetry, identity, started_ns=time.time_ns())


class Sidecar:
    """The running parts and the sockets they serve."""

    def __init__(self, running: Running, sockets: Sequence[SocketSpec], dialer: Dialer) -> None:
        self.running, self._dialer = running, dialer
        self._data = [spec for spec in sockets if spec.role in DATA_ROLES]
        self._dns = [spec for spec in sockets if spec.role == "dns"]
        self._others = [spec for spec in sockets if spec.role in ADMIN_ROLES]

    async def swap(self, config: ProxyConfig) -> None:
        """Put a configuration in force. Ports open after the first one: until then connections wait in the backlog."""
        running = self.running
        running.proxy.apply(config)
        running.updated_ns = running.wall_ns()
        if not running.listening:
            running.listening = True
            await running.proxy.listen(self._data)
        running.ready.set()
        log.info("configuration %s is in force", config.version)

    async def converse(self) -> None:
        """Take the configuration from the snapshot file, or from the control plane for ever."""
        bootstrap = self.running.bootstrap
        if bootstrap.snapshot is not None:
            if self.running.identity is not None:
                await self.running.identity.ready()
            await self.swap(parse_snapshot(orjson.loads(bootstrap.snapshot.read_bytes()), bootstrap.workload.namespace))
        if bootstrap.xds is not None:
            agent = self.running.agent = self._agent(bootstrap, bootstrap.xds)
            self.running.proxy.noticed = agent.report_now
            await agent.run()

    def _seen(self) -> dict[str, Any]:
        """What only the traffic tells, for `status`: ports where HTTP/2 was spoken, and whether the app calls anybody through us."""
        proxy = self.running.proxy
        return {"version": __version__, "h2_ports": sorted(proxy.h2_ports), "calls_out": proxy.calls_out}

    def _agent(self, bootstrap: Bootstrap, xds: Xds) -> Agent:
        async def context() -> ssl.SSLContext:
            identity = self.running.identity
            if identity is None:
                raise RuntimeError("xds without ca: Bootstrap.parse refuses this")
            await identity.ready()
            return identity.client_context(xds.peer)

        return Agent(
            xds.url,
            bootstrap.node.to_json(),
            parse=lambda changes: parse_snapshot(changes, bootstrap.workload.namespace, self.running.proxy.config),
            swap=self.swap,
            context=context,
            probe_targets=tuple(sorted(set(bootstrap.dial.values()))),
            dialer=self._dialer,
            is_serving=self.running.ready.is_set,
            seen=self._seen,
        )

    @asynccontextmanager
    async def names(self) -> AsyncIterator[None]:
        """Serve the pod's DNS; from the first moment, since an app's very start may look up a name."""
        if not self._dns:
            yield
            return
        bootstrap = self.running.bootstrap
        extra = dict.fromkeys(bootstrap.refused_names, ()) | {name: (address,) for name, address in bootstrap.alias_names.items()}
        async with serving([spec.sock for spec in self._dns], lambda: self.running.proxy.config.names, extra):
            yield

    @asynccontextmanager
    async def admin(self, token: str | None) -> AsyncIterator[None]:
        """Serve the admin, health and Prometheus sockets."""
        admin = Admin(self.running, token)
        apps = {"admin": admin.app, "health": admin.health_app, "prometheus": admin.prometheus_app}
        runners: list[web.AppRunner] = []
        try:
            for spec in self._others:
                runner = web.AppRunner(apps[spec.role](), access_log=None, shutdown_timeout=0.5)
                runners.append(runner)
                await runner.setup()
                await web.SockSite(runner, spec.sock).start()
            yield
        finally:
            await admin.close()
            for runner in runners:
                await runner.cleanup()


def _dialer(bootstrap: Bootstrap, sockets: Sequence[SocketSpec]) -> Dialer:
    """Through the pod's init where there is one."""
    channel = next((spec.sock for spec in sockets if spec.role == "connector"), None)
    if channel is None:
        shared = any(spec.role == "virtual_inbound" for spec in sockets)
        return Dialer(bootstrap.shift, INBOUND_SOURCE if shared else None, bootstrap.elsewhere)
    return PodDialer(channel, bootstrap.workload.ip, bootstrap.aliases, bootstrap.shift)


def _admin_token(bootstrap: Bootstrap) -> str | None:
    """Who may write to the admin port: the holder of the mesh token, or at least of this workload's own."""
    if bootstrap.admin_token:
        return bootstrap.admin_token
    try:
        return bootstrap.ca.token_file.read_text().strip() if bootstrap.ca else None
    except OSError:
        return None


async def run(bootstrap: Bootstrap, sockets: Sequence[SocketSpec], ready: Callable[[], None] = lambda: None) -> None:
    """Live until SIGTERM, SIGINT or POST /quitquitquit, then drain. `ready` is called once traffic can flow."""
    dialer = _dialer(bootstrap, sockets)
    running = build(bootstrap, dialer)
    sidecar = Sidecar(running, sockets, dialer)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.stop.set)
    running.telemetry.start()
    if running.identity is not None:
        running.identity.start()
    try:
        async with sidecar.names(), sidecar.admin(_admin_token(bootstrap)):
            await _until_stopped(sidecar, ready)
            await running.proxy.drain(DRAIN_SECONDS)
    finally:
        await running.proxy.close()
        dialer.close()
        if running.identity is not None:
            await running.identity.close()
        await running.telemetry.stop()


async def _until_stopped(sidecar: Sidecar, ready: Callable[[], None]) -> None:
    """A part that fails ends the sidecar with its error; a snapshot file's part that merely ends does not."""
    running = sidecar.running

    async def announce() -> None:
        await running.ready.wait()
        ready()

    conversation = asyncio.create_task(sidecar.converse(), name="control plane")
    others = [asyncio.create_task(announce(), name="announce"), asyncio.create_task(running.stop.wait(), name="stop")]
    try:
        waiting = {conversation, others[1]}
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if conversation in done:
            conversation.result()
            await running.stop.wait()
    finally:
        for task in (conversation, *others):
            task.cancel()
        await asyncio.gather(conversation, *others, return_exceptions=True)


def main(bootstrap_path: Path, sockets: Sequence[SocketSpec] | None = None, ready: Callable[[], None] = lambda: None) -> None:
    """Run with uvloop where it is installed; sockets are the bootstrap's own unless given."""
    allow_many()
    bootstrap = Bootstrap.load(bootstrap_path)
    specs = sockets if sockets is not None else [open_socket(listening) for listening in bootstrap.sockets]
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(bootstrap, specs, ready))


def warm_up() -> None:
    """Run an event loop once: what it makes then is shared with what is forked afterwards."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(asyncio.sleep(0))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - optional: not built for every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    main(Path(sys.argv[1]))
