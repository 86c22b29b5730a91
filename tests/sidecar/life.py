"""A sidecar in this process, on free ports, and a look at its admin listeners."""

import asyncio
import contextlib
import json
import socket

import aiohttp

from devmesh.sidecar.__main__ import run
from devmesh.sidecar.bootstrap import Bootstrap
from devmesh.sidecar.listener import SocketSpec
from tests.sidecar.bootstraps import bootstrap

ROLES = ("admin", "health", "prometheus", "inbound", "outbound")
ROUTE = {
    "name": "9080",
    "virtual_hosts": [
        {
            "name": "reviews.default.svc.cluster.local:9080",
            "domains": ["reviews"],
            "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "outbound|9080||reviews.default.svc.cluster.local", "timeout": "0s"}}
            ],
        }
    ],
}
CLUSTER = {"name": "outbound|9080||reviews.default.svc.cluster.local", "type": "EDS", "connect_timeout": "10s"}
ENDPOINT = {"endpoint": {"address": {"socket_address": {"address": "127.7.0.4", "port_value": 9080}}}}
SNAPSHOT = {
    "version": "v1",
    "listeners": [],
    "routes": [ROUTE],
    "clusters": [CLUSTER],
    "endpoints": [{"cluster_name": CLUSTER["name"], "endpoints": [{"lb_endpoints": [ENDPOINT]}]}],
    "names": [],
}


class Ports:
    def __init__(self, sockets):
        self.sockets = {spec.role: spec.sock.getsockname()[1] for spec in sockets}

    async def call(self, role, path, method="GET", **headers):
        """Give status and text."""
        url = f"http://127.0.0.1:{self.sockets[role]}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as response:
            return response.status, await response.text()

    async def json(self, path):
        status, text = await self.call("admin", path)
        assert status == 200
        return json.loads(text)


def sockets():
    specs = []
    for role in ROLES:
        sock = socket.create_server(("127.0.0.1", 0))
        specs.append(SocketSpec(role, *sock.getsockname(), sock))
    return specs


def snapshot_file(directory, **changes):
    file = directory / "snapshot.json"
    file.write_text(json.dumps(SNAPSHOT | changes))
    return str(file)


@contextlib.asynccontextmanager
async def living(specs=None, *, wait=True, **changes):
    """A sidecar until the block ends, then SIGTERM's way out; `wait` for its readiness."""
    specs = specs or sockets()
    ports, ready = Ports(specs), asyncio.Event()
    changes = {"admin": {"token": "admin-token"}, "dial": {}} | changes
    task = asyncio.create_task(run(Bootstrap.parse(bootstrap(**changes)), specs, ready.set))
    waiting = asyncio.create_task(ready.wait() if wait else asyncio.sleep(0))
    try:
        async with asyncio.timeout(60):
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        yield ports
        if not task.done():
            assert (await ports.call("admin", "/quitquitquit", "POST", Authorization="Bearer admin-token"))[0] == 200
        async with asyncio.timeout(60):
            await task
    finally:
        task.cancel()
        waiting.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
