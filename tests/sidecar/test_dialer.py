"""How connections are made: shifted ports, aliases, and an app that only its pod's init reaches. The init here is a script."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from devmesh.pods.wire import MAX_DATAGRAM, MAX_ITEMS, decode_requests, encode_answers
from devmesh.sidecar import seam
from devmesh.sidecar.dialer import Dialer, PodConnector, PodDialer
from devmesh.sidecar.seam import Handler
from tests.sidecar.sidecars import free_socket, port_of


class ScriptedInit:
    """The other end of the connector."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.settimeout(60)

    async def requests(self) -> list[tuple[int, int]]:
        return decode_requests(await asyncio.to_thread(self._channel.recv, MAX_DATAGRAM))

    def answer(self, *answers: tuple[int, int], socks: tuple[socket.socket, ...] = ()) -> None:
        socket.send_fds(self._channel, [encode_answers(answers)], [sock.fileno() for sock in socks])

    def end(self) -> None:
        self._channel.close()


async def test_a_probe_in_a_shared_namespace_comes_from_the_address_that_is_not_redirected():
    came = asyncio.Queue()

    async def accept(_, writer):
        came.put_nowait(writer.get_extra_info("peername")[0])
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        for dialer in (Dialer(probe_from="127.0.0.6"), Dialer()):
            await dialer.probe("127.0.0.1", port_of(server.sockets[0]))
        assert [await came.get(), await came.get()] == ["127.0.0.6", "127.0.0.1"]


@pytest.fixture
def connector() -> Iterator[tuple[socket.socket, ScriptedInit]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    init = ScriptedInit(theirs)
    yield ours, init
    init.end()
    ours.close()


async def test_requests_of_one_moment_go_in_one_datagram_and_are_answered_in_any_order(connector):
    channel, init = connector
    pod = PodConnector(channel)
    first, second = asyncio.ensure_future(pod.connect(9080)), asyncio.ensure_future(pod.connect(9081))
    (one, port), (two, other) = await init.requests()
    assert (port, other) == (9080, 9081)
    left, right = socket.socketpair()
    init.answer((two, errno.ECONNREFUSED), (one, 0), socks=(left,))
    (await first).close()
    with pytest.raises(ConnectionRefusedError):
        await second
    left.close()
    assert right.recv(1) == b"", "nobody else holds the passed socket"
    right.close()
    pod.close()


async def test_more_requests_than_a_datagram_holds_go_in_several(connector):
    channel, init = connector
    pod = PodConnector(channel)
    asked = [asyncio.ensure_future(pod.connect(9080)) for _ in range(MAX_ITEMS + 1)]
    assert len(await init.requests()) == MAX_ITEMS
    assert len(await init.requests()) == 1
    pod.close()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConnectionRefusedError}


async def test_a_connection_that_nobody_waits_for_any_longer_is_closed(connector):
    channel, init = connector
    pod = PodConnector(channel)
    asked = asyncio.ensure_future(pod.connect(9080))
    ((identity, _),) = await init.requests()
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    left, right = socket.socketpair()
    init.answer((identity, 0), socks=(left,))
    left.close()
    right.settimeout(60)
    assert await asyncio.to_thread(right.recv, 1) == b""
    right.close()
    pod.close()


async def test_when_the_init_ends_everything_is_refused(connector):
    channel, init = connector
    pod = PodConnector(channel)
    asked = asyncio.ensure_future(pod.connect(9080))
    await init.requests()
    init.end()
    with pytest.raises(ConnectionRefusedError):
        await asked
    with pytest.raises(ConnectionRefusedError):
        await pod.connect(9080)
    pod.close()


class Opened(Handler):
    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.close()


@pytest.mark.skipif(not seam.__file__.endswith(".py"), reason="a test's own handler cannot be below a compiled class")
async def test_a_workloads_shifted_port_is_dialled_where_it_is_on_this_machine():
    with free_socket() as listener:
        listener.listen()
        actual = port_of(listener)
        dialer = Dialer(shift=(actual, 1))
        with pytest.raises(ConnectionRefusedError):
            await dialer.connect(Opened, "127.7.250.7", actual - 1, None, original=False)
    with socket.socket() as listener:
        listener.bind(("127.7.250.7", 0))
        listener.listen()
        actual = port_of(listener)
        made = Opened()
        await Dialer(shift=(actual, 1)).connect(lambda: made, "127.7.250.7", actual - 1, None, original=False)
        assert made.transport is not None


@pytest.mark.skipif(not seam.__file__.endswith(".py"), reason="a test's own handler cannot be below a compiled class")
async def test_one_port_of_an_address_stands_for_another_and_its_other_ports_do_not():
    with free_socket() as listener:
        listener.listen()
        stand_in = "127.9.9.9"  # every port of it refuses
        dialer = Dialer(elsewhere={(stand_in, 4318): ("localhost", port_of(listener))})
        made = Opened()
        await dialer.connect(lambda: made, stand_in, 4318, None, original=True)
        assert made.transport is not None
        with pytest.raises(ConnectionRefusedError):
            await dialer.connect(Opened, stand_in, port_of(listener), None, original=True)


@pytest.mark.skipif(not seam.__file__.endswith(".py"), reason="a test's own handler cannot be below a compiled class")
async def test_only_calls_to_the_apps_own_address_as_named_go_through_its_init(connector):
    channel, init = connector
    with free_socket() as listener:
        listener.listen()
        dialer = PodDialer(channel, "127.7.250.7", {"240.241.0.1": "127.0.0.1"})
        alias = Opened()
        await dialer.connect(lambda: alias, "240.241.0.1", port_of(listener), None, original=True)
        assert alias.transport is not None
        inside = asyncio.ensure_future(dialer.connect(Opened, "127.7.250.7", 9080, "127.0.0.6", original=True))
        ((identity, port),) = await init.requests()
        assert port == 9080
        init.answer((identity, errno.ECONNREFUSED))
        with pytest.raises(ConnectionRefusedError):
            await inside
        dialer.close()
