import asyncio
import random

import pytest

from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.health import FIRST_INTERVAL, HEALTHY_INTERVAL, SILENT_LOOKS, AppProbe, Health, Miss, look, next_interval, spread
from tests.sidecar.sidecars import refusing_port
from tests.support.waiting import until


async def test_an_app_is_healthy_once_it_listens():
    sock, _ = refusing_port()
    address = sock.getsockname()
    changes = []
    probe = AppProbe([address], lambda: changes.append(probe.health))
    task = asyncio.create_task(probe.run())
    try:
        await until(lambda: changes)
        assert changes == [Health(healthy=False, detail=f"127.0.0.1:{address[1]}: Connection refused")]
        async with await asyncio.start_server(lambda reader, writer: writer.close(), sock=sock):
            await until(lambda: len(changes) == 2)
        assert changes[1] == Health(healthy=True, detail="")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_connection_that_fails_is_a_reason_to_look_at_once():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    changes, dialer = [], Dialer()
    probe = AppProbe([address], lambda: changes.append(probe.health.healthy), dialer)
    task = asyncio.create_task(probe.run())
    try:
        await until(lambda: changes == [True])
        server.close()
        await server.wait_closed()
        dialer.missed("127.0.0.1", 1)  # somebody else's
        dialer.missed(*address)
        async with asyncio.timeout(HEALTHY_INTERVAL / 2):
            await until(lambda: changes == [True, False])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_only_what_the_app_missed_while_it_was_there_is_news():
    dialer = Dialer()
    probe = AppProbe([("127.0.0.1", 1)], lambda: None, dialer)
    probe.health = Health(healthy=True, detail="")
    dialer.missed("127.0.0.1", 2)
    assert not probe.is_due
    dialer.missed("127.0.0.1", 1)
    assert probe.is_due


@pytest.mark.parametrize(
    ("interval", "healthy", "was_healthy", "following"),
    [
        (0.05, True, False, HEALTHY_INTERVAL),
        (HEALTHY_INTERVAL, False, True, FIRST_INTERVAL),
        (0.05, False, False, 0.075),
        (0.1, False, False, 0.1),  # however long it stays away: on an engine apps start seconds after their sidecars
    ],
)
def test_an_app_that_has_just_gone_is_looked_for_often(interval, healthy, was_healthy, following):
    assert next_interval(interval, healthy=healthy, was_healthy=was_healthy) == pytest.approx(following)


async def test_a_workload_without_an_app_is_healthy():
    probe = AppProbe((), lambda: None)
    await probe.run()
    assert probe.health.healthy


async def test_why_there_is_no_connection():
    miss = await look(Dialer(), "127.0.0.1", 1)
    assert miss is not None
    assert (miss.text, miss.silent) == ("127.0.0.1:1: Connection refused", False)


@pytest.mark.parametrize(
    ("misses", "healthy"),
    [
        ([Miss("refused", silent=False)], [False]),
        ([Miss("silence", silent=True)] * SILENT_LOOKS, [*[True] * (SILENT_LOOKS - 1), False]),
        ([Miss("silence", silent=True), None, *[Miss("silence", silent=True)] * (SILENT_LOOKS - 1)], [True] * (SILENT_LOOKS + 1)),
    ],
    ids=["a refusal is certain", "silence is when it lasts", "an answer begins the count anew"],
)
def test_an_app_that_was_there_is_gone_when_it_refuses_or_stays_silent(misses, healthy):
    probe = AppProbe([("127.0.0.1", 1)], lambda: None)
    probe.health = Health(healthy=True, detail="")
    judged = []
    for miss in misses:
        probe.health = probe._judged([miss] if miss else [])
        judged.append(probe.health.healthy)
    assert judged == healthy


def test_an_app_that_never_answered_is_not_there():
    assert not AppProbe([("127.0.0.1", 1)], lambda: None)._judged([Miss("silence", silent=True)]).healthy


def test_what_sidecars_do_at_one_moment_they_do_not_do_so_again():
    rng = random.Random(1)
    pauses = [spread(HEALTHY_INTERVAL, rng) for _ in range(20)]
    assert len(set(pauses)) == 20
    assert max(pauses) - min(pauses) > 0.5
    assert all(0 < pause <= HEALTHY_INTERVAL for pause in pauses), "never later than is promised"
