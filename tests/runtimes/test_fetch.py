"""Asking the mesh's own servers."""

import pytest
from aiohttp import web

from devmesh.errors import DevmeshError
from devmesh.runtimes.fetch import fetch
from tests.sidecar.sidecars import refusing_port


async def test_a_server_is_asked_with_the_meshs_token_and_its_status_and_body_are_given():
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=418, text=request.headers["authorization"])

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert await fetch(f"http://127.0.0.1:{runner.addresses[0][1]}/", "secret", 5) == (418, "Bearer secret")
    finally:
        await runner.cleanup()


async def test_one_that_is_away_is_named_and_its_token_is_not():
    sock, port = refusing_port()
    with sock, pytest.raises(DevmeshError, match=f"http://127.0.0.1:{port}/certs does not answer") as away:
        await fetch(f"http://127.0.0.1:{port}/certs", "secret", 5)
    assert "secret" not in str(away.value)
    assert away.value.hint == "devmesh status; it is restarted by itself, try again"
