"""A CA on a free port, and workloads that only have a token."""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from devmesh.ca.address import CaAddress
from devmesh.ca.client import Clock, WorkloadIdentity
from devmesh.ca.identity import SpiffeId
from devmesh.ca.server import run

MESH_TOKEN = "mesh-token"
REVIEWS = SpiffeId.of("default", "bookinfo-reviews")


@dataclass
class RunningCa:
    port: int
    directory: Path

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    @property
    def root_file(self):
        return self.directory / "root.pem"

    async def call(self, method, path, body=None, token=None, context=None, headers=None):
        """Give status and JSON body."""
        context = context or ssl.create_default_context(cafile=self.root_file)
        headers = (headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body, ssl=context, headers=headers) as response,
        ):
            is_json = response.content_type == "application/json"
            return response.status, await (response.json() if is_json else response.text())

    async def workload(self, directory, spiffe_id=REVIEWS, name="reviews-v1", secret_ttl=None, **arguments):
        _, answer = await self.call("POST", "/v1/tokens", {"workload": name, "spiffe_id": str(spiffe_id)}, MESH_TOKEN)
        token_file = directory / f"{name}.token"
        token_file.write_text(answer["token"])
        return WorkloadIdentity(CaAddress(self.url, self.root_file, token_file, secret_ttl), spiffe_id, **arguments)


@contextlib.asynccontextmanager
async def running_ca(directory, port=0):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    ready = asyncio.Event()
    task = asyncio.create_task(run(sock, directory, MESH_TOKEN, ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield RunningCa(sock.getsockname()[1], directory)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Time:
    """Passes when told to; `jumped` moves the wall clock alone, as a night's sleep does."""

    def __init__(self):
        self.passed = self.jumped = 0.0
        real = Clock()
        self.clock = Clock(lambda: real.wall_ns() + int((self.passed + self.jumped) * 1e9), lambda: real.monotonic() + self.passed)
