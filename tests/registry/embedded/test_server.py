"""What the embedded registry does beyond Consul's API: the local guard, bad requests, its end."""

import asyncio
import signal

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from devmesh.registry.client import Registry
from devmesh.registry.embedded.server import EmbeddedRegistry
from tests.registry.process import TOKEN, running


@pytest.fixture
async def session(tmp_path):
    async with (
        TestServer(EmbeddedRegistry(tmp_path, TOKEN).app()) as server,
        ClientSession(server.make_url(""), headers={"X-Consul-Token": TOKEN}) as session,
    ):
        yield session


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=["host", "origin"])
async def test_a_foreign_host_or_origin_is_refused_even_with_the_token(session, headers):
    async with session.get("/v1/kv/devmesh/x", headers=headers) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/agent/service/register", b"{"),
        ("PUT", "/v1/agent/service/register", b"[]"),
        ("PUT", "/v1/agent/service/register", b'{"Port": "x", "Name": "a"}'),
        ("PUT", "/v1/txn", b"null"),
        ("PUT", "/v1/kv/x?cas=first", b""),
        ("GET", "/v1/kv/x?index=first", b""),
        ("GET", "/v1/kv/x?index=1&wait=soon", b""),
    ],
)
async def test_a_request_that_makes_no_sense_is_400(session, method, path, body):
    async with session.request(method, path, data=body) as answer:
        assert answer.status == 400


async def test_sigterm_ends_it_at_once_while_queries_are_held(tmp_path):
    async with running(tmp_path) as process, Registry(process.url, TOKEN) as registry:
        await registry.kv_put("devmesh/x", b"1")
        index, _ = await registry.kv_get("devmesh/x")
        held = asyncio.create_task(registry.kv_get("devmesh/x", index=index, wait=60))
        await registry.kv_put("devmesh/y", b"1")
        await asyncio.to_thread(process.kill, signal.SIGTERM)
        assert process.status == 0
        await asyncio.gather(held, return_exceptions=True)
        await process.start()
    async with running(tmp_path) as process, Registry(process.url, TOKEN) as registry:
        assert (await registry.kv_get("devmesh/y"))[1].value == b"1"
