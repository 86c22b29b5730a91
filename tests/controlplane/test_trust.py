"""Whose word counts about an app's health, by a clock of the test's own."""

import asyncio
import contextlib
import math

import pytest

from devmesh.controlplane.push import SILENCE_SECONDS, Proxy, Pushes
from devmesh.controlplane.trust import Trust
from devmesh.controlplane.watch import Link
from devmesh.registry.client import Instance
from tests.support.virtual_time import in_virtual_time, now, pass_time, settled

TTL = 15.0


class ScriptedWatch:
    def __init__(self):
        self.link, self.returned, self.inherited = Link.SYNCED, -math.inf, frozenset()
        self.changed, self.link_changed = asyncio.Event(), asyncio.Event()

    def becomes(self, link):
        if link is Link.SYNCED:
            self.returned = now()
        self.link = link
        self.link_changed.set()
        self.link_changed = asyncio.Event()


def instance(status="critical"):
    return Instance(id="web-v1", service="web", address="10.0.0.1", port=80, meta={}, vip="", status=status)


def trusting(*, connected=True, reported=True):
    watch, pushes = ScriptedWatch(), Pushes(clock=now)
    if connected:
        pushes.proxies["web-v1"] = Proxy("web-v1", "default", open_polls=1)
    trust = Trust(watch, pushes, TTL, now)
    if reported is not None:
        trust.reported["web-v1"] = reported
    return trust, watch, pushes


@in_virtual_time
async def test_the_registry_is_believed_while_it_is_there():
    trust, _, _ = trusting()
    assert trust.is_healthy(instance("passing"))
    assert not trust.is_healthy(instance())


@pytest.mark.parametrize("link", [Link.UNREACHABLE, Link.LOST])
@in_virtual_time
async def test_what_ran_out_while_the_registry_was_away_is_no_news_for_a_ttl_after_its_return(link):
    trust, watch, _ = trusting()
    watch.becomes(link)
    await pass_time(100)
    assert trust.is_healthy(instance())
    watch.becomes(Link.SYNCED)
    await pass_time(TTL - 0.1)
    assert trust.is_healthy(instance())
    await pass_time(0.2)
    assert not trust.is_healthy(instance())


@pytest.mark.parametrize("reported", [False, None])
@in_virtual_time
async def test_a_sidecar_that_has_not_said_that_its_app_is_well_is_no_witness(reported):
    trust, watch, _ = trusting(reported=reported)
    watch.becomes(Link.UNREACHABLE)
    assert not trust.is_healthy(instance())


@in_virtual_time
async def test_a_sidecar_that_is_gone_is_no_witness_either():
    trust, watch, pushes = trusting()
    watch.becomes(Link.UNREACHABLE)
    pushes.proxies["web-v1"].open_polls, pushes.proxies["web-v1"].last_seen = 0, now()
    await pass_time(SILENCE_SECONDS - 0.1)
    assert trust.is_healthy(instance())
    await pass_time(0.2)
    assert not trust.is_healthy(instance())


@in_virtual_time
async def test_what_we_found_at_our_start_is_healthy_for_a_ttl_unless_its_sidecar_says_otherwise():
    trust, watch, _ = trusting(reported=None)
    watch.inherited = frozenset({"web-v1"})
    assert trust.is_healthy(instance())
    trust.reported["web-v1"] = True
    assert trust.is_healthy(instance()), "the registry has yet to be told what its sidecar says"
    trust.reported["web-v1"] = False
    assert not trust.is_healthy(instance())
    del trust.reported["web-v1"]
    await pass_time(TTL + 0.1)
    assert not trust.is_healthy(instance())


@in_virtual_time
async def test_whoever_compiles_is_woken_when_trust_comes_back():
    trust, watch, _ = trusting()
    running = asyncio.create_task(trust.run())

    async def woken_at():
        await watch.changed.wait()
        watch.changed.clear()
        return now()

    assert await woken_at() == TTL, "our own start's grace"
    watch.becomes(Link.UNREACHABLE)
    await pass_time(5)
    watch.becomes(Link.SYNCED)
    await pass_time(5)
    watch.becomes(Link.UNREACHABLE)
    await pass_time(1)
    watch.becomes(Link.SYNCED)
    back = now()
    await settled()
    while (at := await woken_at()) < back + TTL:
        pass  # the first return's
    assert at == back + TTL
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
