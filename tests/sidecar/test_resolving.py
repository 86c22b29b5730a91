"""Endpoints that are names: all addresses of a name are called, and others when it has others."""

import asyncio
import contextlib
import random
import time

import pytest

from devmesh.sidecar.config import Cluster, Endpoint
from devmesh.sidecar.resolving import machine_lookup
from devmesh.sidecar.tls import Contexts
from devmesh.sidecar.upstream import Upstreams

NAMED = Cluster("c", "STRICT_DNS", "ROUND_ROBIN", (Endpoint("a.example", 80, weight=2),), dns_refresh_rate=60.0)


class Script:
    """A resolver's answers in turn, and a clock that stands until it is told to go on."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked, self.slept = [], []
        self._asleep, self._awake = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def lookup(self, host):
        self.asked.append(host)
        return self._answers.pop(0)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self._asleep.release()
        await self._awake.acquire()

    async def answered(self):
        await asyncio.wait_for(self._asleep.acquire(), 60)

    async def again(self):
        self._awake.release()
        await self.answered()


@contextlib.asynccontextmanager
async def upstreams(script, *clusters):
    ours = Upstreams(Contexts(None, lambda _: None), {}, time.monotonic, random.Random(1), None, script.lookup, script.sleep)
    ours.configure({one.name: one for one in clusters})
    try:
        yield ours
    finally:
        await ours.close()


def chosen(ours, cluster, times=1):
    found = [ours.choose(cluster, None, frozenset(), 0) for _ in range(times)]
    return [None if one is None else one.address for one in found]


async def test_all_addresses_of_a_name_take_turns():
    script = Script(("10.0.0.1", "10.0.0.2"))
    async with upstreams(script, NAMED) as ours:
        await script.answered()
        assert sorted(chosen(ours, NAMED, 4)) == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]
        assert [(one.port, one.weight) for one in ours.endpoints(NAMED)] == [(80, 2), (80, 2)]
        assert script.slept == [60.0]


async def test_endpoints_are_the_same_ones_until_a_name_has_other_addresses():
    """Pools are found by their identity."""
    script = Script(("10.0.0.1",), ("10.0.0.1",), ("10.0.0.2",))
    async with upstreams(script, NAMED) as ours:
        await script.answered()
        first = ours.endpoints(NAMED)
        ours.configure({NAMED.name: NAMED})
        await script.again()
        assert ours.endpoints(NAMED) is first
        await script.again()
        assert [one.address for one in ours.endpoints(NAMED)] == ["10.0.0.2"]


async def test_before_the_first_answer_the_name_itself_is_called():
    async with upstreams(Script(("10.0.0.1",)), NAMED) as ours:
        assert chosen(ours, NAMED) == ["a.example"]


async def test_a_name_that_has_other_addresses_is_called_there_and_connections_to_the_old_ones_are_kept_no_longer():
    script = Script(("10.0.0.1",), ("10.0.0.2",))
    async with upstreams(script, NAMED) as ours:
        await script.answered()
        pool = ours.http_pool(NAMED, ours.choose(NAMED, None, frozenset(), 0))
        assert not pool.retired
        await script.again()
        assert chosen(ours, NAMED) == ["10.0.0.2"]
        assert pool.retired


async def test_a_resolver_that_cannot_say_changes_nothing_and_a_name_without_addresses_has_no_endpoint():
    script = Script(("10.0.0.1",), None, ())
    async with upstreams(script, NAMED) as ours:
        await script.answered()
        await script.again()
        assert chosen(ours, NAMED) == ["10.0.0.1"]
        await script.again()
        assert chosen(ours, NAMED) == [None]


async def test_names_are_asked_for_once_whoever_has_them_and_no_longer_when_nobody_does():
    script = Script(("10.0.0.1",), ("10.0.0.9",))
    other = Cluster("d", "STRICT_DNS", "RANDOM", (Endpoint("a.example", 81), Endpoint("10.0.0.7", 82)), dns_refresh_rate=30.0)
    async with upstreams(script, NAMED, other) as ours:
        await script.answered()
        assert (script.asked, script.slept) == (["a.example"], [30.0])
        assert [(one.address, one.port) for one in ours.endpoints(other)] == [("10.0.0.1", 81), ("10.0.0.7", 82)]
        ours.configure({})
        ours.configure({"c": NAMED})
        await script.answered()
        assert chosen(ours, NAMED) == ["10.0.0.9"]


async def test_names_of_other_clusters_are_left_to_the_dialer():
    logical = Cluster("l", "LOGICAL_DNS", "RANDOM", (Endpoint("a.example", 80),))
    script = Script()
    async with upstreams(script, logical) as ours:
        assert chosen(ours, logical) == ["a.example"]
    assert script.asked == []


@pytest.mark.parametrize(("host", "found"), [("localhost", ("127.0.0.1",)), ("a..b", None)])
async def test_the_machines_resolver_is_asked(host, found):
    assert await machine_lookup(host) == found
