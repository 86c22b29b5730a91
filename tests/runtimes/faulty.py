"""A registry with a small mesh in it, and faults to write there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp.test_utils import TestServer

from devmesh.config.injection import FaultRequest, fault_document
from devmesh.config.model import ResourceKey
from devmesh.registry.client import Registry
from devmesh.registry.embedded.server import EmbeddedRegistry
from devmesh.registry.resources import StoredResource, write_mesh

TOKEN = "t0ken"
TOPOLOGY = {
    "workloads": [
        {"name": name, "namespace": "default", "ip": "10.0.0.1", "service": service, "version": "v1", "gateway": name == "gate"}
        for name, service in (("web-v1", "web"), ("api-v1", "api"), ("api-v2", "api"), ("gate", "gate"))
    ]
}


@contextlib.asynccontextmanager
async def empty_registry(folder: Path) -> AsyncIterator[Registry]:
    async with TestServer(EmbeddedRegistry(folder, TOKEN).app()) as server, Registry(str(server.make_url("")), TOKEN) as client:
        yield client


@contextlib.asynccontextmanager
async def mesh_registry(folder: Path) -> AsyncIterator[Registry]:
    async with empty_registry(folder) as client:
        await write_mesh(client, "mesh-1", TOPOLOGY, {})
        yield client


def stored(identity: str, request: FaultRequest, injected: float = 1000.0, owner: str = "fault") -> StoredResource:
    key = ResourceKey("devmesh.dev", "Fault", "default", identity)
    return StoredResource(key, owner, fault_document(identity, request, injected), "-")
