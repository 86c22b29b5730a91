"""A control plane on an embedded registry, and sidecars that only speak xDS: what the tests of this package talk to."""

import asyncio
import contextlib
import socket

import aiohttp
from aiohttp import web

from devmesh.config.model import ResourceKey
from devmesh.controlplane.server import ControlPlane, running
from devmesh.controlplane.state import CompileOutput
from devmesh.registry.client import Registry
from devmesh.registry.embedded.server import EmbeddedRegistry
from devmesh.registry.resources import StoredResource, apply_resources, write_mesh, write_resources
from devmesh.xds.rest import AGGREGATED, AggregatedResponse, Conversation
from devmesh.xds.snapshot import TYPES, Snapshot
from tests.controlplane.certificates import Authority

TOKEN = "t0ken"
CONTROL_PLANE_ID = "spiffe://cluster.local/ns/devmesh-system/sa/controlplane"
TOPOLOGY = {
    "services": [
        {
            "name": name,
            "namespace": "default",
            "clusterIP": f"240.240.0.{number}",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 9080, "targetPort": 9080, "appProtocol": "http"}],
        }
        for number, name in enumerate(("ratings", "reviews"), 1)
    ],
    "workloads": [
        {
            "name": f"{name}-v1",
            "namespace": "default",
            "ip": f"127.7.0.{number}",
            "labels": {"app": name, "version": "v1"},
            "serviceAccount": f"bookinfo-{name}",
            "gateway": False,
            "service": name,
            "version": "v1",
            "ports": [9080],
        }
        for number, name in enumerate(("ratings", "reviews"), 1)
    ],
}


def compile_names(wanted):
    """A compiler whose output says what it was given: the hosts of all VirtualServices and the healthy workloads."""
    hosts = sorted(host for resource in wanted.resources for host in resource.raw["spec"]["hosts"])
    resources = {
        "listeners": ({"name": "virtualOutbound"},),
        "clusters": (),
        "routes": tuple({"name": host} for host in hosts),
        "endpoints": tuple({"cluster_name": name} for name in sorted(wanted.healthy)),
        "names": (),
    }
    return CompileOutput({workload.name: Snapshot.of(**resources) for workload in wanted.topology.workloads}, ())


def virtual_service(name, host="reviews"):
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}]}]},
    }
    return StoredResource(
        ResourceKey("networking.istio.io", "VirtualService", "default", name), "apply", document, f"{name}.yaml", {"kind": 2}
    )


def bound():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock


class Sidecar:
    """Polls as a sidecar does; `refuse` is what it says against the next thing it gets. `answers` are the types of each answer."""

    def __init__(self, url, context, workload="reviews-v1", ip="127.7.0.2"):
        self.url, self.context, self.workload = url, context, workload
        self.node = {"id": f"sidecar~{ip}~{workload}.default~default.svc.cluster.local", "cluster": workload}
        self.version, self.refuse, self.got = "", None, {}
        self.answers = []

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.context))
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def post(self, path, body, timeout_ms=5000):
        headers = {"x-envoy-expected-rq-timeout-ms": str(timeout_ms)}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, (
                await answer.json() if answer.status == 200 and answer.content_type == "application/json" else await answer.text()
            )

    async def health(self, *, healthy=True, detail="", **seen):
        return await self.post("/v1/health", {"healthy": healthy, "detail": detail, "restarts": 0, "node": self.node, **seen})

    async def poll(self, kind, version="", nonce="", error=None, timeout_ms=5000):
        body = {"node": self.node, "version_info": version, "response_nonce": nonce, "resource_names": [], "type_url": kind}
        if error:
            body["error_detail"] = {"code": 3, "message": error}
        return await self.post(f"/v3/discovery:{kind}", body, timeout_ms)

    async def is_configured(self):
        return bool(self.version)

    async def run(self):
        conversation = Conversation(TYPES)
        while True:
            status, answer = await self.post(f"/v3/discovery:{AGGREGATED}", conversation.request(self.node))
            if status == 200:
                self._take(conversation, AggregatedResponse.parse(answer))
            elif status != 304:
                await asyncio.sleep(0.02)

    def _take(self, conversation, answer):
        changes = conversation.received(answer)
        self.answers.append(sorted(answer.responses))
        if self.refuse:
            conversation.refuse("?", self.refuse)
        else:
            conversation.accept()
            self.got |= {kind: changes[kind] for kind in TYPES if kind in changes}
            self.version = answer.version


class Mesh:
    def __init__(self, directory, compile_all=compile_names, ttl=15.0):
        self.directory, self.compile_all, self.ttl = directory, compile_all, ttl
        self.authority = Authority()
        self.registry_sock, self.xds_sock, self.admin_sock = bound(), bound(), bound()
        self.registry_url, self.admin_url = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (self.registry_sock, self.admin_sock))
        self.xds_url = f"https://127.0.0.1:{self.xds_sock.getsockname()[1]}"

    async def _context(self):
        return self.authority.context(CONTROL_PLANE_ID, server=True)

    @contextlib.asynccontextmanager
    async def registry_running(self, name="registry"):
        runner = web.AppRunner(EmbeddedRegistry(self.directory / name, TOKEN).app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        sock = socket.socket(fileno=socket.dup(self.registry_sock.fileno()))
        await web.SockSite(runner, sock).start()
        try:
            yield
        finally:
            await runner.cleanup()

    @contextlib.asynccontextmanager
    async def control_plane_running(self):
        async with Registry(self.registry_url, TOKEN) as registry:
            plane = ControlPlane(registry, TOKEN, self.compile_all, ttl=self.ttl)
            async with running(
                plane, *(socket.socket(fileno=socket.dup(s.fileno())) for s in (self.xds_sock, self.admin_sock)), self._context
            ):
                yield plane

    async def write(self, topology=TOPOLOGY, mesh_id="m1"):
        async with Registry(self.registry_url, TOKEN) as registry:
            await write_mesh(registry, mesh_id, topology, {})
            await write_resources(registry, ())

    async def apply(self, *resources):
        async with Registry(self.registry_url, TOKEN) as registry:
            return (await apply_resources(registry, resources)).generation

    def sidecar(self, workload="reviews-v1", account="bookinfo-reviews", authority=None, ip="127.7.0.2"):
        context = (authority or self.authority).context(f"spiffe://cluster.local/ns/default/sa/{account}")
        return Sidecar(self.xds_url, context, workload, ip)

    @contextlib.asynccontextmanager
    async def sidecar_running(self, **which):
        async with self.sidecar(**which) as sidecar:
            task = asyncio.create_task(sidecar.run())
            try:
                await self.until(sidecar.is_configured)
                yield sidecar
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def admin(self, path, **options):
        async with aiohttp.ClientSession(self.admin_url) as session, session.get(path, **options) as answer:
            return answer.status, (await answer.json() if answer.content_type == "application/json" else await answer.text())

    async def generation(self, uuid, wait="5s"):
        status, answer = await self.admin(f"/v1/generations/{uuid}", params={"wait": wait})
        assert status == 200
        return answer | {"by": {one["workload"]: one for one in answer["sidecars"]}}

    async def until(self, holds, seconds=10):
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0.01)
