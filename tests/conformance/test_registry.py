"""The part of Consul's HTTP API that devmesh uses: one suite, the embedded registry and a real Consul."""

import asyncio
import base64
import os

import aiohttp
import pytest
import pytest_asyncio

from devmesh.errors import DevmeshError
from devmesh.registry.client import Operation, Registration, Registry, RegistryDeniedError, next_index
from tests.registry.process import TOKEN, running
from tests.support.require import tool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=["embedded", "consul"], scope="module", loop_scope="module")
async def server(request, tmp_path_factory):
    binary = tool("consul", "consul") if request.param == "consul" else None
    async with running(tmp_path_factory.mktemp(request.param), binary) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def registry(server):
    async with Registry(server.url, TOKEN) as client:
        for service in await agent_services(client):
            await client.deregister(service)
        await client.kv_delete("", recurse=True)
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def raw(server, registry):
    async with aiohttp.ClientSession(server.url, headers={"X-Consul-Token": TOKEN}) as session:
        yield session


async def agent_services(registry):
    return [service for service in await registry._call(lambda c: c.agent.services()) if service != "consul"]


def workload(name="reviews-v1", **changes):
    values = {
        "workload": name,
        "service": "reviews",
        "address": "127.7.0.3",
        "port": 9080,
        "namespace": "default",
        "version": "v1",
        "service_account": "bookinfo-reviews",
        "vip": "240.240.0.2",
        "labels": {"app": "reviews", "version": "v1"},
        "ports": [{"name": "http", "port": 9080, "targetPort": 9080}],
    }
    return Registration(**(values | changes))


async def statuses(registry):
    _, checks = await registry.health_state()
    return {check.service_id: check.status for check in checks if check.service_id}


async def until(registry, condition):
    """Wait with blocking queries on the checks until the condition holds."""
    index = 0
    async with asyncio.timeout(60):
        while not await condition():
            index, _ = await registry.health_state(index=index, wait=1)


# KV


async def test_a_value_comes_back_byte_for_byte(registry):
    value = bytes(range(256))
    assert await registry.kv_put("devmesh/x", value)
    _, pair = await registry.kv_get("devmesh/x")
    assert pair.value == value


async def test_a_missing_key_is_none_and_has_an_index_to_wait_on(registry):
    index, pair = await registry.kv_get("devmesh/missing")
    assert pair is None
    assert index > 0


async def test_an_empty_value_is_not_a_missing_key(registry):
    await registry.kv_put("devmesh/empty", b"")
    _, pair = await registry.kv_get("devmesh/empty")
    assert pair.value == b""


async def test_cas_zero_creates_once(registry):
    assert await registry.kv_put("devmesh/lock", b"1", cas=0)
    assert not await registry.kv_put("devmesh/lock", b"2", cas=0)
    _, pair = await registry.kv_get("devmesh/lock")
    assert pair.value == b"1"


async def test_cas_with_the_modify_index_wins_and_a_stale_one_loses(registry):
    await registry.kv_put("devmesh/x", b"1")
    _, first = await registry.kv_get("devmesh/x")
    assert await registry.kv_put("devmesh/x", b"2", cas=first.modify_index)
    assert not await registry.kv_put("devmesh/x", b"3", cas=first.modify_index)


async def test_a_stale_cas_deletes_nothing(registry):
    await registry.kv_put("devmesh/x", b"1")
    _, first = await registry.kv_get("devmesh/x")
    await registry.kv_put("devmesh/x", b"2")
    assert not await registry.kv_delete("devmesh/x", cas=first.modify_index)
    _, pair = await registry.kv_get("devmesh/x")
    assert await registry.kv_delete("devmesh/x", cas=pair.modify_index)
    assert (await registry.kv_get("devmesh/x"))[1] is None


async def test_a_prefix_lists_its_keys_in_order_and_deletes_as_one(registry):
    for key in ("devmesh/a/2", "devmesh/a/1", "devmesh/b"):
        await registry.kv_put(key, b"x")
    assert [pair.key for pair in (await registry.kv_list("devmesh/a/"))[1]] == ["devmesh/a/1", "devmesh/a/2"]
    await registry.kv_delete("devmesh/a/", recurse=True)
    assert (await registry.kv_list("devmesh/a/"))[1] == []
    assert [pair.key for pair in (await registry.kv_list("devmesh/"))[1]] == ["devmesh/b"]


async def test_keys_raw_and_flags(registry, raw):
    async with raw.put("/v1/kv/devmesh/k/one", params={"flags": "42"}, data=b"\x00raw") as answer:
        assert await answer.json() is True
    await registry.kv_put("devmesh/k/two/three", b"x")
    async with raw.get("/v1/kv/devmesh/k/one?raw") as answer:
        assert await answer.read() == b"\x00raw"
    async with raw.get("/v1/kv/devmesh/k/", params={"keys": "", "separator": "/"}) as answer:
        assert await answer.json() == ["devmesh/k/one", "devmesh/k/two/"]
    assert (await registry.kv_get("devmesh/k/one"))[1].flags == 42


async def test_writing_the_same_value_again_moves_no_index(registry):
    await registry.kv_put("devmesh/same", b"x")
    _, first = await registry.kv_get("devmesh/same")
    await registry.kv_put("devmesh/same", b"x")
    _, second = await registry.kv_get("devmesh/same")
    assert first.modify_index == second.modify_index


async def test_512_kib_fit_and_a_byte_more_is_413(registry, raw):
    limit = 512 * 1024
    value = os.urandom(limit)
    assert await registry.kv_put("devmesh/big", value)
    assert (await registry.kv_get("devmesh/big"))[1].value == value
    async with raw.put("/v1/kv/devmesh/bigger", data=b"x" * (limit + 1)) as answer:
        assert answer.status == 413
    with pytest.raises(DevmeshError) as caught:
        await registry.kv_put("devmesh/bigger", b"x" * (limit + 1))
    assert "split the resource" in caught.value.hint


# Blocking queries


async def test_a_blocking_query_wakes_at_a_write_under_its_prefix(registry):
    await registry.kv_put("devmesh/w/a", b"1")
    index, _ = await registry.kv_list("devmesh/w/")
    waiting = asyncio.create_task(registry.kv_list("devmesh/w/", index=index, wait=60))
    await registry.kv_put("devmesh/elsewhere", b"x")
    await registry.kv_put("devmesh/w/b", b"2")
    newer, pairs = await asyncio.wait_for(waiting, 60)
    assert newer > index
    assert [pair.key for pair in pairs] == ["devmesh/w/a", "devmesh/w/b"]


async def test_a_blocking_query_wakes_at_a_deletion(registry):
    await registry.kv_put("devmesh/w/a", b"1")
    await registry.kv_put("devmesh/w/b", b"1")
    index, _ = await registry.kv_list("devmesh/w/")
    waiting = asyncio.create_task(registry.kv_list("devmesh/w/", index=index, wait=60))
    await registry.kv_delete("devmesh/w/a")
    newer, pairs = await asyncio.wait_for(waiting, 60)
    assert newer > index
    assert [pair.key for pair in pairs] == ["devmesh/w/b"]


async def test_a_blocking_query_on_a_missing_key_wakes_when_it_appears(registry):
    index, _ = await registry.kv_get("devmesh/soon")
    waiting = asyncio.create_task(registry.kv_get("devmesh/soon", index=index, wait=60))
    await registry.kv_put("devmesh/soon", b"here")
    async with asyncio.timeout(60):
        _, pair = await waiting
        while pair is None:
            _, pair = await registry.kv_get("devmesh/soon", index=index, wait=1)
    assert pair.value == b"here"


async def test_a_blocking_query_answers_the_same_index_when_its_wait_is_over(registry):
    await registry.kv_put("devmesh/w/a", b"1")
    index, _ = await registry.kv_list("devmesh/w/")
    same, pairs = await registry.kv_list("devmesh/w/", index=index, wait=0.05)
    assert same == index
    assert len(pairs) == 1


@pytest.mark.parametrize(
    ("previous", "given", "then"), [(5, 7, 7), (5, 5, 5), (5, 3, 0), (0, 0, 0)], ids=["forward", "same", "backward", "zero"]
)
async def test_an_index_that_goes_backwards_restarts_at_zero(registry, previous, given, then):
    assert next_index(previous, given) == then


# Transactions


async def test_a_transaction_writes_all_or_nothing(registry):
    await registry.kv_put("devmesh/t/old", b"x")
    with pytest.raises(DevmeshError):
        await registry.txn([Operation("devmesh/t/new", b"1"), Operation("devmesh/t/old", b"2", cas=0)])
    assert [pair.key for pair in (await registry.kv_list("devmesh/t/"))[1]] == ["devmesh/t/old"]
    await registry.txn([Operation("devmesh/t/new", b"1"), Operation("devmesh/t/old", None)])
    assert [pair.key for pair in (await registry.kv_list("devmesh/t/"))[1]] == ["devmesh/t/new"]


async def test_more_than_64_operations_are_split_and_the_last_one_is_last(registry):
    await registry.txn([Operation(f"devmesh/many/{n:03}", b"x") for n in range(150)] + [Operation("devmesh/generation", b"g")])
    _, pairs = await registry.kv_list("devmesh/many/")
    _, generation = await registry.kv_get("devmesh/generation")
    assert len(pairs) == 150
    assert generation.modify_index >= max(pair.modify_index for pair in pairs)


async def test_values_too_big_for_one_transaction_are_split_too(registry):
    values = [os.urandom(size) for size in (200_000, 300_000, 512 * 1024, 100)]
    await registry.txn([Operation(f"devmesh/large/{n}", value) for n, value in enumerate(values)])
    assert [pair.value for pair in (await registry.kv_list("devmesh/large/"))[1]] == values


async def test_the_server_refuses_65_operations(raw):
    operation = {"KV": {"Verb": "set", "Key": "devmesh/x", "Value": base64.b64encode(b"x").decode()}}
    async with raw.put("/v1/txn", json=[operation] * 65) as answer:
        assert answer.status == 413
    async with raw.put("/v1/txn", json=[operation] * 64) as answer:
        assert answer.status == 200
        assert (await answer.json())["Errors"] is None


async def test_reads_in_a_transaction_answer_their_values(registry, raw):
    await registry.kv_put("devmesh/r", b"value")
    async with raw.put("/v1/txn", json=[{"KV": {"Verb": "get", "Key": "devmesh/r"}}]) as answer:
        results = (await answer.json())["Results"]
    assert base64.b64decode(results[0]["KV"]["Value"]) == b"value"
    async with raw.put("/v1/txn", json=[{"KV": {"Verb": "get", "Key": "devmesh/none"}}]) as answer:
        assert answer.status == 409
        assert (await answer.json())["Errors"][0]["OpIndex"] == 0


# Services and checks


async def test_a_registered_workload_is_in_catalogue_and_health_with_all_it_said(registry):
    await registry.register(workload())
    _, services = await registry.catalog_services()
    assert "reviews" in services
    _, [instance] = await registry.health_service("reviews")
    assert (instance.id, instance.service, instance.address, instance.port) == ("reviews-v1", "reviews", "127.7.0.3", 9080)
    assert instance.vip == "240.240.0.2"
    assert instance.meta == workload().meta
    assert instance.status == "critical"


async def test_a_ttl_check_passes_warns_and_fails_as_told(registry):
    await registry.register(workload())
    for tell, status in ((registry.ttl_pass, "passing"), (registry.ttl_warn, "warning"), (registry.ttl_fail, "critical")):
        assert await tell("service:reviews-v1", "because")
        assert (await statuses(registry)) == {"reviews-v1": status}


async def test_the_note_is_the_checks_output(registry):
    await registry.register(workload())
    await registry.ttl_fail("service:reviews-v1", "app exited with status 3")
    _, checks = await registry.health_state(state="critical")
    assert [check.output for check in checks if check.service_id] == ["app exited with status 3"]


async def test_only_passing_instances_are_listed_when_asked(registry):
    await registry.register(workload())
    await registry.register(workload("reviews-v2", version="v2", healthy=True))
    _, passing = await registry.health_service("reviews", passing=True)
    assert [instance.id for instance in passing] == ["reviews-v2"]
    _, every = await registry.health_service("reviews")
    assert sorted(instance.id for instance in every) == ["reviews-v1", "reviews-v2"]


async def test_silence_for_one_ttl_makes_a_check_critical_and_wakes_the_watch(registry):
    await registry.register(workload(ttl=0.3))
    await registry.ttl_pass("service:reviews-v1")
    index, _ = await registry.health_state()

    async def expired():
        return (await statuses(registry)) == {"reviews-v1": "critical"}

    await until(registry, expired)
    assert (await registry.health_state())[0] > index


async def test_a_check_nobody_registered_is_false(registry):
    assert not await registry.ttl_pass("service:nobody")


async def test_registering_again_changes_the_address_and_keeps_one_instance(registry):
    await registry.register(workload())
    await registry.register(workload(address="127.7.0.9"))
    _, instances = await registry.health_service("reviews")
    assert [instance.address for instance in instances] == ["127.7.0.9"]


async def test_a_deregistered_workload_is_gone_with_its_check(registry):
    await registry.register(workload())
    index, _ = await registry.health_state()
    waiting = asyncio.create_task(registry.health_state(index=index, wait=60))
    assert await registry.deregister("reviews-v1")
    _, checks = await asyncio.wait_for(waiting, 60)
    assert [check for check in checks if check.service_id] == []
    assert (await registry.health_service("reviews"))[1] == []


async def test_an_http_check_follows_the_answer(registry, raw, server):
    body = {"Name": "self", "ID": "probe", "HTTP": f"{server.url}/v1/status/leader", "Interval": "100ms", "Timeout": "1s"}
    await registry.register(workload())
    async with raw.put("/v1/agent/check/register", json=body | {"ServiceID": "reviews-v1"}) as answer:
        assert answer.status == 200

    async def passes():
        _, checks = await registry.health_state(state="passing")
        return any(check.check_id == "probe" for check in checks)

    await until(registry, passes)


async def test_update_sets_status_and_output(registry, raw):
    await registry.register(workload())
    async with raw.put("/v1/agent/check/update/service:reviews-v1", json={"Status": "warning", "Output": "slow"}) as answer:
        assert answer.status == 200
    _, checks = await registry.health_state(state="warning")
    assert [(check.service_id, check.output) for check in checks] == [("reviews-v1", "slow")]


async def test_catalogue_service_and_nodes(registry, raw):
    await registry.register(workload())
    async with raw.get("/v1/catalog/service/reviews") as answer:
        [entry] = await answer.json()
    assert (entry["ServiceID"], entry["ServiceAddress"], entry["ServicePort"]) == ("reviews-v1", "127.7.0.3", 9080)
    assert entry["ServiceMeta"]["version"] == "v1"
    async with raw.get("/v1/catalog/nodes") as answer:
        [node] = await answer.json()
    assert node["Node"] == "devmesh"


async def test_agent_self_names_the_node(raw):
    async with raw.get("/v1/agent/self") as answer:
        assert (await answer.json())["Config"]["NodeName"] == "devmesh"


# Access


@pytest.mark.parametrize("token", ["", "00000000-dead-4000-8000-000000000000"], ids=["none", "wrong"])
async def test_the_kv_refuses_a_request_without_the_token(registry, server, token):
    await registry.kv_put("devmesh/secret", b"x")
    async with Registry(server.url, token) as stranger:
        with pytest.raises(RegistryDeniedError):
            await stranger.kv_get("devmesh/secret")
        with pytest.raises(RegistryDeniedError):
            await stranger.kv_put("devmesh/secret", b"y")
        with pytest.raises(RegistryDeniedError):
            await stranger.register(workload("intruder"))


async def test_lists_are_empty_without_a_token(registry, server):
    await registry.register(workload())
    async with Registry(server.url, "") as stranger:
        assert [check for check in (await stranger.health_state())[1] if check.service_id] == []


async def test_the_leader_is_known_without_a_token(server):
    async with Registry(server.url, "") as stranger:
        assert ":" in await stranger.leader()


async def test_the_environments_consul_token_does_not_replace_ours(server, monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "something-else")
    async with Registry(server.url, TOKEN) as client:
        assert await client.kv_put("devmesh/x", b"x")


# Survival (last: it restarts the module's server)


async def test_everything_written_survives_a_kill(registry, server):
    await registry.kv_put("devmesh/mesh-id", b"m1")
    await registry.txn([Operation("devmesh/a", b"1"), Operation("devmesh/b", b"2")])
    await registry.kv_delete("devmesh/a")
    await registry.register(workload())
    await server.restart()
    async with Registry(server.url, TOKEN) as again:
        # A Consul that has just come back answers with nothing until its ACLs are read again.
        async def keys_are_back():
            return [pair.key for pair in (await again.kv_list("devmesh/"))[1]] == ["devmesh/b", "devmesh/mesh-id"]

        await until(again, keys_are_back)

        async def is_back():
            return [instance.id for instance in (await again.health_service("reviews"))[1]] == ["reviews-v1"]

        await until(again, is_back)
