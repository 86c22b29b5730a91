"""One mesh for the observed cases: an app, our sidecars before it, and as the caller's proxy either our sidecar or a live Envoy.

Both callers get the same resources (xds-examples), ours as a snapshot, Envoy over REST. Changed in them, for both: the ports, which are
free ones here; the filters the sidecar has not yet (JWT, RBAC, rate limit); HTTP/2 to mesh peers, which the sidecar carries as bytes only.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier

from devmesh.runtimes.claims import claim_port
from devmesh.sidecar.config import HttpManager, TcpProxy
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry.access_log import fields, json_line, text_line
from tests.conformance.envoy_process import running_envoy
from tests.controlplane.certificates import Authority, _builder

Json = dict[str, Any]
EXAMPLES = Path(__file__).parent / "xds-examples"
NOT_YET = ("envoy.filters.http.jwt_authn", "envoy.filters.http.rbac", "envoy.filters.http.local_ratelimit")
HTTP_OPTIONS = "typed_extension_protocol_options"
SPIFFE = "spiffe://cluster.local/ns/default/sa/"


def example(name: str) -> list[Json]:
    found: list[Json] = json.loads((EXAMPLES / f"{name}.json").read_text())["resources"]
    return found


def free_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def walk(value: Any, change: Callable[[Json], None]) -> Any:
    """Apply `change` to every object inside."""
    if isinstance(value, dict):
        change(value)
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        walk(one, change)
    return value


class App:
    """The app behind everything: `/sleep/S`, `/status/N`, `/close`, `/partial`; every third request to exactly `/retry/` succeeds."""

    def __init__(self) -> None:
        self._news = asyncio.Condition()
        self._seen: list[str] = []
        self._flaky = 0
        self._server: asyncio.Server | None = None
        self._closing = asyncio.Event()
        self._serving: set[asyncio.Task[Any]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return port_of(self._server.sockets[0])

    async def reached(self, prefix: str) -> None:
        """Wait for a request to such a path."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: any(target.startswith(prefix) for target in self._seen))

    async def stop(self) -> None:
        """After the proxies: their closing ends what reads here, `_closing` what sleeps."""
        assert self._server is not None
        self._server.close()
        self._closing.set()
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first = await reader.readexactly(1)
                if first == b"\x16":  # TLS on a plaintext port
                    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                    break
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                target = head.split(" ")[1]
                async with self._news:
                    self._seen.append(target)
                    self._news.notify_all()
                if not await self._answer(target, writer):
                    break
        writer.close()

    async def _answer(self, target: str, writer: asyncio.StreamWriter) -> bool:
        status, body = 200, f"hello {target}\n"
        if "/sleep/" in target:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(float(target.rpartition("/")[2])):
                    await self._closing.wait()
        elif "/status/" in target:
            status, body = int(target.rpartition("/")[2]), "app status from reviews-v1\n"
        elif target == "/retry/":
            self._flaky += 1
            status = 200 if self._flaky % 3 == 0 else 503
        elif "/close" in target:
            return False
        partial = target == "/partial"
        length = 1000 if partial else len(body)
        writer.write(f"HTTP/1.1 {status} X\r\nserver: app\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n".encode())
        writer.write(b"partial" if partial else body.encode())
        await writer.drain()
        return not partial


class Secrets:
    """SVIDs of one authority, in the snapshot's shape and in SDS's."""

    def __init__(self) -> None:
        self._authority = Authority()

    def of(self, account: str) -> tuple[str, str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        names = SubjectAlternativeName([UniformResourceIdentifier(SPIFFE + account)])
        leaf = _builder(account, key, self._authority.certificate.subject).add_extension(names, critical=True)
        pem = leaf.sign(self._authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return pem, key.private_bytes(*form).decode(), self._authority.pem

    def snapshot(self, account: str) -> list[Json]:
        chain, key, root = self.of(account)
        return [{"name": "default", "certificate_chain": chain, "private_key": key, "trust_bundle": root}]

    def sds(self, account: str) -> list[Json]:
        chain, key, root = self.of(account)
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
        pair = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
        trust = {"trusted_ca": {"inline_string": root}}
        return [
            {"@type": kind, "name": "default", "tls_certificate": pair},
            {"@type": kind, "name": "ROOTCA", "validation_context": trust},
        ]


def ports_changed(resources: list[Json], ports: dict[int, int]) -> list[Json]:
    def change(value: Json) -> None:
        if "port_value" in value:
            value["port_value"] = ports.get(value["port_value"], value["port_value"])

    return list(walk(copy.deepcopy(resources), change))


def supported(resources: list[Json]) -> list[Json]:
    """Without the filters the sidecar has not yet, and with HTTP/1.1 between the proxies."""

    def change(value: Json) -> None:
        value.pop(HTTP_OPTIONS, None)
        if "http_filters" in value:
            value["http_filters"] = [f for f in value["http_filters"] if f["name"] not in NOT_YET]
        if "typed_per_filter_config" in value:
            value["typed_per_filter_config"] = {k: v for k, v in value["typed_per_filter_config"].items() if k not in NOT_YET}
        if "alpn_protocols" in value:
            value["alpn_protocols"] = ["devmesh", "http/1.1"]
        if "tls_params" in value:
            value["tls_params"] = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}

    return list(walk(resources, change))


def extra_routes(routes: list[Json]) -> list[Json]:
    """The routes of the cases that were observed with configurations of their own."""
    limits = {"idle": {"idle_timeout": "0.3s"}, "longest": {"max_stream_duration": {"max_stream_duration": "0.3s"}}}
    for name, limit in limits.items():
        action = {"cluster": "plain", "timeout": "0s", **limit}
        routes[0]["virtual_hosts"][0]["routes"].insert(0, {"name": name, "match": {"prefix": f"/{name}/"}, "route": action})
    return routes


class Caller(Protocol):
    """The proxy under test."""

    port: int

    async def log(self) -> Json: ...


class _Records:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[Record] = asyncio.Queue()

    def record(self, record: Record, manager: HttpManager) -> None:
        self.queue.put_nowait(record)

    def fault_met(self, fault: str) -> None: ...

    def tcp_opened(self, record: Record) -> None: ...

    def tcp_closed(self, record: Record, config: TcpProxy) -> None:
        self.queue.put_nowait(record)


class OurCaller:
    def __init__(self, port: int, records: _Records) -> None:
        self.port, self._records = port, records

    async def log(self) -> Json:
        async with asyncio.timeout(60):
            record = await self._records.queue.get()
        return {**fields(record), "upstream_request_attempt_count": len(record.attempts)}

    async def lines(self) -> list[bytes]:
        """The next record as text and as JSON."""
        record = await self._records.queue.get()
        return [text_line(record), json_line(record)]


class EnvoyCaller:
    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port, self._process = port, process

    async def log(self) -> Json:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line: Json = json.loads(await self._process.stdout.readline())
        return line

    async def lines(self) -> list[bytes]:
        """The next two lines."""
        assert self._process.stdout is not None
        return [await self._process.stdout.readline() for _ in range(2)]


class Mesh:
    """The app, the sidecars `reviews` before it, and what the caller's configuration is made of."""

    def __init__(self) -> None:
        self.app = App()
        self.secrets = Secrets()
        self.ports: dict[int, int] = {}
        self._proxies: list[Proxy] = []
        self._sockets: list[socket.socket] = []

    async def start(self) -> None:
        app = await self.app.start()
        dead = free_socket()  # bound, not listening: refuses
        silent = free_socket()
        silent.listen(0)
        self._sockets = [dead, silent]
        for _ in range(3):  # a full backlog drops the SYN of every further connection
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
            self._sockets.append(filler)
        self.ports = {8081: app, 8082: app, 8083: app, 9: port_of(dead), 8099: port_of(silent)}
        for name, nominal in (("inbound-v1", 16001), ("inbound-v2", 16002), ("inbound-permissive", 16003)):
            self.ports[nominal] = await self._sidecar(name)

    async def _sidecar(self, name: str) -> int:
        listeners = [one for one in supported(example("reviews.listeners")) if one["name"] == name]
        clusters = ports_changed(example("reviews.clusters"), self.ports)
        proxy = Proxy(spiffe_id=SPIFFE + "reviews")
        proxy.apply(
            parse_snapshot({"version": "1", "listeners": listeners, "clusters": clusters, "secrets": self.secrets.snapshot("reviews")})
        )
        sock = free_socket()
        await proxy.listen([SocketSpec("inbound", "127.0.0.1", port_of(sock), sock)])
        self._proxies.append(proxy)
        return port_of(sock)

    def resources(self, port: int) -> dict[str, list[Json]]:
        ports = {**self.ports, 15001: port}
        kinds = ("listeners", "routes", "clusters", "endpoints")
        found = {kind: ports_changed(supported(example(f"web.{kind}")), ports) for kind in kinds}
        extra_routes(found["routes"])
        return found

    async def stop(self) -> None:
        for proxy in self._proxies:
            await proxy.close()
        await self.app.stop()
        for sock in self._sockets:
            sock.close()


@contextlib.asynccontextmanager
async def our_caller(mesh: Mesh) -> AsyncIterator[Caller]:
    sock = free_socket()
    port = port_of(sock)
    resources = mesh.resources(port)
    resources["listeners"][0]["name"] = f"0.0.0.0_{port}"  # how a proxy in gateway mode finds the listener of a socket
    records = _Records()
    proxy = Proxy(spiffe_id=SPIFFE + "web", gateway=True, telemetry=records)
    proxy.apply(parse_snapshot({"version": "1", **resources, "secrets": mesh.secrets.snapshot("web")}))
    await proxy.listen([SocketSpec("inbound", "127.0.0.1", port, sock)])
    try:
        yield OurCaller(port, records)
    finally:
        await proxy.close()


class Discovery:
    """xDS over REST: one version for ever, held afterwards."""

    def __init__(self, resources: dict[str, list[Json]]) -> None:
        self._resources = resources
        self._closing = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked.get("version_info"):
            await self._closing.wait()
            return web.Response(status=304)
        wanted = set(asked.get("resource_names") or ())
        found = [r for r in self._resources[request.match_info["kind"]] if not wanted or r.get("name", r.get("cluster_name")) in wanted]
        return web.json_response({"version_info": "1", "resources": found, "type_url": asked.get("type_url", ""), "nonce": "1"})

    def close(self) -> None:
        self._closing.set()


@contextlib.asynccontextmanager
async def envoy_caller(binary: Path, mesh: Mesh, directory: Path) -> AsyncIterator[Caller]:
    port, held = claim_port()
    with held:  # until Envoy has bound it
        discovery = Discovery({**mesh.resources(port), "secrets": mesh.secrets.sds("web")})
        app = web.Application()
        app.router.add_post("/v3/discovery:{kind}", discovery.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            bootstrap = _bootstrap(runner.addresses[0][1])
            async with running_envoy(binary, bootstrap, directory, lambda: _answers(port), flush_milliseconds=10) as process:
                caller = EnvoyCaller(port, process)
                await caller.log()  # the record of the request that found it ready
                yield caller
        finally:
            discovery.close()
            await runner.cleanup()


def _bootstrap(xds_port: int) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": xds_port}}
    source: Json = {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "5s",
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": ["xds"],
            "refresh_delay": "0.05s",
            "request_timeout": "30s",
        },
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    xds = {"name": "xds", "type": "STATIC", "load_assignment": {"cluster_name": "xds", "endpoints": endpoints}}
    return {
        "node": {"id": "web", "cluster": "web"},
        "dynamic_resources": {"lds_config": source, "cds_config": source},
        "static_resources": {"clusters": [xds]},
    }


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /direct HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n")
    try:
        return (await reader.read()).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
