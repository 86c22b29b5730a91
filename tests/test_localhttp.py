"""The guard before listeners on loopback and in container networks: which Host is taken for this machine's own."""

import pytest
from aiohttp import ClientSession, web

from devmesh.localhttp import guard


@pytest.mark.parametrize(
    ("by_address", "host", "origin", "status"),
    [
        (False, "127.0.0.1", None, 200),
        (False, "127.0.0.2", None, 403),
        (True, "127.0.0.2", None, 200),
        (True, "127.0.0.3", None, 403),
        (True, "rebound.example", None, 403),
        (True, "127.0.0.2", "http://evil.example", 403),
    ],
    ids=["local", "an address", "the address that was connected to", "another address", "a rebound name", "a foreign page"],
)
async def test_an_address_is_a_host_only_where_it_was_connected_to_and_only_when_asked_for(by_address, host, origin, status):
    async def answer(_):
        return web.Response(text="metrics")

    app = web.Application(middlewares=[guard(None, by_address=by_address)])
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0).start()
    url = f"http://127.0.0.2:{runner.addresses[0][1]}/metrics"
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    try:
        async with ClientSession() as session, session.get(url, headers=headers) as response:
            assert response.status == status
    finally:
        await runner.cleanup()
