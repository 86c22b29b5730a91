"""Polls and acknowledgements, request by request."""

import asyncio

import orjson
import pytest

from devmesh.controlplane.push import Generation, Pushes
from devmesh.xds.rest import TYPE_URLS, DiscoveryRequest, DiscoveryResponse
from devmesh.xds.snapshot import TYPES, Snapshot

NAME = "reviews-v1"


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pushes(clock):
    pushes = Pushes(clock)
    pushes.replace({NAME: ("default", snapshot("v1"))})
    return pushes


def snapshot(version, versions=None):
    return Snapshot(version, {kind: ({"name": f"{kind} {version}"},) for kind in TYPES}, versions or {})


def change(pushes, version, versions=None):
    return pushes.replace({NAME: ("default", snapshot(version, versions))})


def generation(pushes, name="g1", index=10, life=0):
    made = Generation(name, index, life, (), 0.0, 100.0, {n: p.sequence for n, p in pushes.proxies.items()}, frozenset(pushes.proxies))
    pushes.record(made)
    return made


async def poll(pushes, kind="listeners", version="", nonce="", error=None, hold=0.0):
    reply = await pushes.poll(NAME, {kind: DiscoveryRequest(TYPE_URLS[kind], {}, version, nonce, error)}, hold)
    return reply and reply.responses[kind]


async def poll_all(pushes, versions, nonces=None, errors=None, hold=0.0):
    """One poll for all types; the versions of those that are answered, by type."""
    asked = {k: DiscoveryRequest(TYPE_URLS[k], {}, versions[k], (nonces or {}).get(k, ""), (errors or {}).get(k)) for k in TYPES}
    return await pushes.poll(NAME, asked, hold)


async def acknowledge_all(pushes, version):
    for kind in TYPES:
        assert await poll(pushes, kind, version) is None


def state(pushes):
    return pushes.sidecar_state(NAME, pushes.proxies[NAME].sequence)


async def test_a_first_poll_is_answered_at_once(pushes):
    reply = await poll(pushes)
    assert reply.version == "v1"
    assert reply.resources == ({"name": "listeners v1"},)


async def test_one_poll_for_all_types_is_answered_with_one_whole_snapshot(pushes):
    reply = await poll_all(pushes, dict.fromkeys(TYPES, ""))
    assert (reply.version, list(reply.responses)) == ("v1", list(TYPES))


async def test_only_the_types_that_changed_are_sent_and_the_others_are_acknowledged(pushes):
    change(pushes, "v1", dict.fromkeys(TYPES, "v1"))
    reply = await poll_all(pushes, dict.fromkeys(TYPES, ""))
    nonces = {kind: one.nonce for kind, one in reply.responses.items()}
    held = asyncio.create_task(poll_all(pushes, dict.fromkeys(TYPES, "v1"), nonces, hold=5))
    await asyncio.sleep(0)
    assert state(pushes) == ("acked", "")
    change(pushes, "v2", dict.fromkeys(TYPES, "v1") | {"routes": "r2"})
    assert state(pushes) == ("pending", "")
    reply = await held
    assert (reply.version, {kind: one.version for kind, one in reply.responses.items()}) == ("v2", {"routes": "r2"})
    assert await poll_all(pushes, dict.fromkeys(TYPES, "v1") | {"routes": "r2"}, nonces) is None
    assert state(pushes) == ("acked", "")
    assert pushes.proxies[NAME].version_acked == "v2"


async def test_what_was_refused_together_is_sent_together_again(pushes):
    await poll_all(pushes, dict.fromkeys(TYPES, "v1"))
    change(pushes, "v2", dict.fromkeys(TYPES, "v1") | {"routes": "bad", "clusters": "c2"})
    reply = await poll_all(pushes, dict.fromkeys(TYPES, "v1"))
    nonces = {kind: one.nonce for kind, one in reply.responses.items()}
    assert await poll_all(pushes, dict.fromkeys(TYPES, "v1"), nonces, {"routes": "no"}) is None
    assert state(pushes) == ("nacked", "no")
    change(pushes, "v3", dict.fromkeys(TYPES, "v1") | {"routes": "mended", "clusters": "c2"})
    reply = await poll_all(pushes, dict.fromkeys(TYPES, "v1"), nonces, {"routes": "no"})
    assert {kind: one.version for kind, one in reply.responses.items()} == {"routes": "mended", "clusters": "c2"}


async def test_what_is_sent_is_what_was_encoded_once(pushes):
    listener = {"name": "l"}
    pushes.replace({NAME: ("default", Snapshot.of([listener], [], [], []))})
    listener["name"] = "written to later"
    assert DiscoveryResponse.parse(orjson.loads(orjson.dumps((await poll(pushes)).to_json()))).resources == ({"name": "l"},)


async def test_a_poll_with_the_current_version_is_held_until_the_next_one(pushes):
    waiting = asyncio.create_task(poll(pushes, version="v1", hold=5))
    await asyncio.sleep(0)
    assert not waiting.done()
    change(pushes, "v2")
    assert (await waiting).version == "v2"


async def test_a_held_poll_ends_with_nothing(pushes):
    assert await poll(pushes, version="v1", hold=0.01) is None


async def test_what_was_received_and_is_not_yet_in_force_is_not_sent_again(pushes):
    reply = await poll(pushes)
    assert await poll(pushes, nonce=reply.nonce) is None


async def test_a_reply_lost_on_the_way_is_sent_again(pushes):
    await poll(pushes)
    assert (await poll(pushes, nonce="")).version == "v1"


async def test_acknowledged_means_in_force_for_every_type(pushes):
    for kind in TYPES:
        await poll(pushes, kind)
    assert state(pushes) == ("pending", "")
    for kind in TYPES[:-1]:
        await poll(pushes, kind, "v1")
    assert state(pushes) == ("pending", "")
    await poll(pushes, TYPES[-1], "v1")
    assert state(pushes) == ("acked", "")


async def test_a_refusal_is_told_and_nothing_is_sent_until_the_next_snapshot(pushes):
    await acknowledge_all(pushes, "v1")
    change(pushes, "v2")
    reply = await poll(pushes, version="v1")
    assert await poll(pushes, version="v1", nonce=reply.nonce, error="no such cluster") is None
    assert state(pushes) == ("nacked", "no such cluster")
    assert await poll(pushes, version="v1", nonce=reply.nonce, error="no such cluster") is None
    change(pushes, "v3")
    assert (await poll(pushes, version="v1", nonce=reply.nonce, error="no such cluster")).version == "v3"
    assert state(pushes) == ("pending", "")


async def test_a_refused_version_that_comes_back_is_offered_again(pushes):
    reply = await poll(pushes)
    await poll(pushes, nonce=reply.nonce, error="no")
    change(pushes, "v2")
    change(pushes, "v1")
    assert (await poll(pushes, nonce=reply.nonce, error="no")).version == "v1"


async def test_going_back_to_what_a_proxy_runs_since_it_refused_what_came_between_is_acknowledged_at_once(pushes):
    await acknowledge_all(pushes, "v1")
    change(pushes, "v2")
    nonces = {kind: (await poll(pushes, kind, "v1")).nonce for kind in TYPES}
    held = [asyncio.create_task(poll(pushes, kind, "v1", nonces[kind], "no", hold=0.2)) for kind in TYPES]
    await asyncio.sleep(0)
    assert state(pushes)[0] == "nacked"
    change(pushes, "v1")
    assert state(pushes) == ("acked", "")
    assert await asyncio.gather(*held) == [None] * len(TYPES)


async def test_going_back_is_not_acknowledged_while_a_proxy_may_be_taking_what_came_between(pushes):
    await acknowledge_all(pushes, "v1")
    change(pushes, "v2")
    for kind in TYPES:
        await poll(pushes, kind, "v1")
    change(pushes, "v1")
    assert state(pushes)[0] == "pending"


async def test_a_stale_refusal_is_not_counted_against_the_newer_snapshot(pushes):
    reply = await poll(pushes)
    change(pushes, "v2")
    await poll(pushes, nonce=reply.nonce)
    await poll(pushes, nonce=reply.nonce, error="of v1")
    assert state(pushes) == ("pending", "")


async def test_an_earlier_generation_is_acknowledged_by_a_later_snapshot(pushes):
    first = pushes.proxies[NAME].sequence
    change(pushes, "v2")
    await acknowledge_all(pushes, "v2")
    assert pushes.sidecar_state(NAME, first) == ("acked", "")


async def test_the_same_version_again_changes_nobody(pushes):
    await acknowledge_all(pushes, "v1")
    assert change(pushes, "v1") == frozenset()
    assert state(pushes) == ("acked", "")


async def test_silence_is_disconnection_and_an_open_poll_is_not_silence(pushes, clock):
    assert state(pushes) == ("disconnected", "")
    waiting = asyncio.create_task(poll(pushes, version="v0", nonce="x", hold=5))
    await waiting
    assert state(pushes) == ("pending", "")
    clock.now += 60
    assert state(pushes) == ("disconnected", "")
    await acknowledge_all(pushes, "v1")
    held = asyncio.create_task(poll(pushes, version="v1", hold=5))
    await asyncio.sleep(0)
    clock.now += 60
    assert pushes.proxies[NAME].is_connected(clock())
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    assert pushes.proxies[NAME].open_polls == 0


async def test_a_proxy_that_never_asks_for_names_needs_not_acknowledge_them(pushes):
    for kind in ("listeners", "routes", "clusters", "endpoints"):
        await poll(pushes, kind, "v1")
    assert state(pushes) == ("acked", "")


async def test_a_workload_that_left_the_topology_ends_its_polls(pushes):
    held = asyncio.create_task(poll(pushes, version="v1", hold=5))
    await asyncio.sleep(0)
    pushes.replace({})
    assert await held is None
    assert pushes.sidecar_state(NAME, 1)[0] == "disconnected"


async def test_a_generation_is_found_by_its_id_or_by_a_later_compile_in_the_same_life(pushes):
    made = generation(pushes, index=10)
    assert pushes.generation_for("g1", 0, 0) is made
    assert pushes.generation_for("overtaken", 9, 0) is made
    assert pushes.generation_for("written later", 11, 0) is None
    assert pushes.generation_for("of another registry", 9, 1) is None


async def test_a_generation_is_settled_when_nobody_is_pending(pushes):
    made = generation(pushes)
    assert pushes.is_settled(made)
    await poll(pushes)
    assert not pushes.is_settled(made)
    await acknowledge_all(pushes, "v1")
    assert pushes.is_settled(made)
