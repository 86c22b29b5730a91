import asyncio

from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.health import AppProbe, Health, connect_error
from tests.support.waiting import until


async def test_an_app_is_healthy_once_it_listens():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    changes = []
    probe = AppProbe([address], lambda: changes.append(probe.health))
    task = asyncio.create_task(probe.run())
    try:
        await until(lambda: changes)
        assert changes == [Health(healthy=False, detail=f"127.0.0.1:{address[1]}: Connection refused")]
        server = await asyncio.start_server(lambda reader, writer: writer.close(), *address)
        async with server:
            await until(lambda: len(changes) == 2)
        assert changes[1] == Health(healthy=True, detail="")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_workload_without_an_app_is_healthy():
    probe = AppProbe((), lambda: None)
    await probe.run()
    assert probe.health.healthy


async def test_why_there_is_no_connection():
    assert "Connection refused" in await connect_error(Dialer(), "127.0.0.1", 1)
