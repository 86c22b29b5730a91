"""Resources in the KV: encoding, ownership, generations."""

import gzip
import os

import orjson
import pytest
from aiohttp.test_utils import TestServer

from devmesh.config.model import ResourceKey
from devmesh.errors import DevmeshError
from devmesh.registry.client import Pair, Registry
from devmesh.registry.embedded.server import EmbeddedRegistry
from devmesh.registry.resources import (
    GENERATION,
    StoredResource,
    apply_resources,
    decode,
    delete_resources,
    encode,
    in_force,
    kv_key,
    list_resources,
    parse_kv_key,
    replace_owner,
    unsealed,
    write_resources,
)

TOKEN = "t0ken"


@pytest.fixture
async def registry(tmp_path):
    async with TestServer(EmbeddedRegistry(tmp_path, TOKEN).app()) as server, Registry(str(server.make_url("")), TOKEN) as client:
        yield client


def stored(name, owner="apply", **spec):
    key = ResourceKey("networking.istio.io", "VirtualService", "default", name)
    document = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name, "namespace": "default"}}
    return StoredResource(
        key, owner, document | {"spec": {"hosts": ["reviews"], **spec}}, "mesh/a.yaml", {"spec.hosts": 7}, {"spec.hosts": 3}, 2
    )


def test_the_key_names_owner_group_kind_namespace_and_name():
    resource = stored("reviews")
    assert resource.kv_key == "devmesh/resources/apply/networking.istio.io/VirtualService/default/reviews"
    assert parse_kv_key(resource.kv_key) == ("apply", resource.key)


def test_a_name_with_a_slash_cannot_reach_another_key():
    key = ResourceKey("g", "K", "default", "../../mesh-id")
    assert "/../" not in kv_key("apply", key)
    assert parse_kv_key(kv_key("apply", key)) == ("apply", key)


def test_encoding_is_gzipped_json_with_source_and_owner_and_reads_back_equal():
    resource = stored("reviews")
    body = orjson.loads(gzip.decompress(encode(resource)))
    assert body["source"]["file"] == "mesh/a.yaml"
    assert body["source"]["lines"] == {"spec.hosts": 7}
    assert body["owner"] == "apply"
    assert decode(Pair(resource.kv_key, encode(resource), 1)) == resource
    assert encode(resource) == encode(stored("reviews"))


def test_what_is_not_gzipped_json_names_its_key():
    with pytest.raises(DevmeshError, match="holds no resource"):
        decode(Pair(stored("x").kv_key, b"plain", 1))


def test_more_than_the_registry_takes_is_the_users_error():
    with pytest.raises(DevmeshError, match="VirtualService default/big") as caught:
        encode(stored("big", noise=os.urandom(600_000).hex()))
    assert "split" in caught.value.hint


async def test_apply_says_what_it_did_and_names_a_new_generation(registry):
    first = await apply_resources(registry, [stored("a"), stored("b")])
    assert [key.name for key in first.created] == ["a", "b"]
    second = await apply_resources(registry, [stored("a"), stored("b", x=1)])
    assert ([k.name for k in second.unchanged], [k.name for k in second.changed]) == (["a"], ["b"])
    assert first.generation != second.generation
    assert (await registry.kv_get(GENERATION))[1].value.decode() == second.generation


async def test_replacing_an_owner_prunes_its_resources_and_no_others(registry):
    await apply_resources(registry, [stored("kept")])
    await replace_owner(registry, "mesh", [stored("a", "mesh"), stored("b", "mesh")])
    done = await replace_owner(registry, "mesh", [stored("b", "mesh")])
    assert [key.name for key in done.deleted] == ["a"]
    assert [(one.owner, one.key.name) for one in await list_resources(registry)] == [("apply", "kept"), ("mesh", "b")]


async def test_a_name_that_two_owners_have_is_a_conflict(registry):
    await apply_resources(registry, [stored("same")])
    done = await replace_owner(registry, "mesh", [stored("same", "mesh")])
    assert [key.name for key in done.conflicts] == ["same"]
    assert done.deleted == ()


async def test_what_is_applied_takes_the_place_of_what_the_mesh_has_under_its_name(registry):
    await replace_owner(registry, "mesh", [stored("a", "mesh"), stored("b", "mesh")])
    await apply_resources(registry, [stored("c"), stored("a", x=1)])
    found = in_force(await list_resources(registry))
    assert [(one.owner, one.key.name) for one in found] == [("apply", "a"), ("mesh", "b"), ("apply", "c")], "with the age of the first"
    await replace_owner(registry, "mesh", [stored("c", "mesh"), stored("d", "mesh")])  # another `up`
    found = in_force(await list_resources(registry))
    assert {one.key.name: one.owner for one in found} == {"a": "apply", "c": "apply", "d": "mesh"}
    await delete_resources(registry, [("apply", stored("c").key)])
    assert [(one.owner, one.key.name) for one in in_force(await list_resources(registry)) if one.key.name == "c"] == [("mesh", "c")]


async def test_deleting_names_a_generation_too(registry):
    await apply_resources(registry, [stored("a")])
    generation = await delete_resources(registry, [("apply", stored("a").key)])
    assert await list_resources(registry) == []
    assert (await registry.kv_get(GENERATION))[1].value.decode() == generation


async def test_resources_are_listed_by_age_then_by_their_place_in_the_files(registry):
    await apply_resources(registry, [stored("z")])
    await apply_resources(registry, [stored("a"), stored("z", x=1)])
    assert [one.key.name for one in await list_resources(registry)] == ["z", "a"]


async def test_a_secret_never_reaches_the_registry_in_the_clear_and_applying_it_again_changes_nothing(registry):
    key = ResourceKey("", "Secret", "istio-system", "a")
    document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"tls.key": "hidden"}}
    secret = StoredResource(key, "apply", document, "secret.yaml")
    assert (await apply_resources(registry, [secret])).created == (key,)
    assert (await apply_resources(registry, [secret])).unchanged == (key,)
    for write in (None, write_resources):
        if write is not None:
            await write(registry, [secret])
        (found,) = await list_resources(registry)
        assert "hidden" not in str(found)
        assert unsealed(found, TOKEN).document == document
