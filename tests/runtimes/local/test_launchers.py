"""What a supervisor hears of its launchers, and through which of them it forks. The launchers here are scripts."""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from devmesh.runtimes.local.launchers import Launchers
from devmesh.runtimes.local.preload import Preload
from devmesh.runtimes.processes import start_time
from tests.support.waiting import until


class Scripted:
    """The launcher's end of a channel; its process only waits to be ended."""

    def __init__(self) -> None:
        ours, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.channel.settimeout(60)
        self.process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.preload = Preload.of(self.process.pid, ours)

    def say(self, **event: object) -> None:
        self.channel.send(json.dumps(event).encode())

    def end(self) -> None:
        self.preload.end()
        self.channel.close()
        self.process.communicate()


@pytest.fixture
def own() -> Iterator[Scripted]:
    one = Scripted()
    yield one
    one.end()


@pytest.fixture
def pods() -> Iterator[Scripted]:
    one = Scripted()
    yield one
    one.end()


async def test_a_pod_is_forked_by_the_pods_launcher_with_its_sockets_and_everything_else_by_the_other(own, pods):
    launchers = Launchers(own.preload, pods.preload)
    launchers.listen(lambda _: None)
    left, right = socket.socketpair()
    with left, right:
        launchers.fork({"name": "web-pod"}, [left], pod=True)
        launchers.fork({"name": "ca"}, [], pod=False)
    message, fds, _, _ = socket.recv_fds(pods.channel, 1000, 4)
    assert (json.loads(message), len(fds)) == ({"name": "web-pod"}, 1)
    os.close(fds[0])
    assert json.loads(own.channel.recv(1000)) == {"name": "ca"}
    await launchers.end()


def test_what_is_to_be_kept_goes_to_the_launcher_of_our_own_processes(own, pods):
    launchers = Launchers(own.preload, pods.preload)
    left, right = socket.socketpair()
    with left, right:
        launchers.keep(left)
    message, fds, _, _ = socket.recv_fds(own.channel, 1000, 4)
    assert (json.loads(message), len(fds)) == ({"keep": True}, 1)
    os.close(fds[0])


async def test_events_of_both_are_heard(own, pods):
    heard: asyncio.Queue[dict] = asyncio.Queue()
    launchers = Launchers(own.preload, pods.preload)
    launchers.listen(heard.put_nowait)
    pods.say(event="started", name="web-pod", pid=1)
    own.say(event="started", name="ca", pid=2)
    async with asyncio.timeout(60):
        assert {(await heard.get())["name"] for _ in range(2)} == {"web-pod", "ca"}
    await launchers.end()


async def test_a_launcher_that_died_is_asked_for_nothing_any_more(own):
    launchers = Launchers(own.preload, None)
    heard: asyncio.Queue[dict] = asyncio.Queue()
    launchers.listen(heard.put_nowait)
    assert not launchers.is_lost
    own.say(event="exited", name="ca", pid=1, status=0)
    own.channel.close()
    async with asyncio.timeout(60):
        await heard.get()
    await asyncio.sleep(0)
    assert launchers.is_lost
    launchers.fork({"name": "ca"}, [], pod=False)
    launchers.fork({"name": "web-pod"}, [], pod=True)
    assert not launchers.make_pods
    await launchers.end()


def next_request(one: Scripted) -> dict:
    message, fds, _, _ = socket.recv_fds(one.channel, 100_000, 4)
    for fd in fds:
        os.close(fd)
    return {**json.loads(message), "sockets": len(fds)}


async def test_more_requests_than_the_channel_holds_wait_for_their_turn_with_their_sockets(own):
    launchers = Launchers(own.preload, None)
    launchers.listen(lambda _: None)
    count = 1000
    for number in range(count):
        left, right = socket.socketpair()
        with left, right:
            launchers.fork({"name": str(number), "padding": "x" * 2000}, [left], pod=False)
    with pytest.raises(BlockingIOError):
        own.preload.channel.send(b"x" * 2000)
    taken = []
    while len(taken) < count:
        taken.append(await asyncio.to_thread(next_request, own))
    assert [(one["name"], one["sockets"]) for one in taken] == [(str(number), 1) for number in range(count)]
    await launchers.end()


async def test_requests_that_still_wait_when_their_launcher_dies_are_given_up(own):
    launchers = Launchers(own.preload, None)
    launchers.listen(lambda _: None)
    left, right = socket.socketpair()
    with right:
        with left:
            for number in range(1000):
                launchers.fork({"name": str(number), "padding": "x" * 2000}, [left], pod=False)
        own.channel.close()
        await until(lambda: launchers.is_lost)
        right.settimeout(60)
        assert right.recv(1) == b"", "nobody has the socket any more"
    await launchers.end()


async def test_all_that_has_been_said_by_now_is_heard_at_once(own):
    heard: list[str] = []
    launchers = Launchers(own.preload, None)
    launchers.listen(lambda event: heard.append(event["name"]))
    for name in ("ca", "control", "web-sidecar"):
        own.say(event="started", name=name, pid=1)
    await until(lambda: heard)
    assert heard == ["ca", "control", "web-sidecar"]
    await launchers.end()


async def test_ended_launchers_are_gone_and_may_be_ended_again(own, pods):
    launchers = Launchers(own.preload, pods.preload)
    launchers.listen(lambda _: None)
    state = launchers.state()
    assert state["launcher"] == {"pid": own.preload.pid, "started": start_time(own.preload.pid)}
    assert state["pod_launcher"]["pid"] == pods.preload.pid
    for _ in range(2):
        await launchers.end()
    assert start_time(own.preload.pid) is None
    assert start_time(pods.preload.pid) is None
    assert Launchers(own.preload, None).state()["pod_launcher"] is None
