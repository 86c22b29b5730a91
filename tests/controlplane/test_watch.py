"""What the two blocking queries make of the registry."""

import asyncio
import math

import pytest
from aiohttp.test_utils import TestServer

from devmesh.controlplane.watch import Link, RegistryWatch, read_configuration
from devmesh.registry.client import Pair, Registration, Registry
from devmesh.registry.embedded.server import EmbeddedRegistry
from devmesh.registry.resources import MESH_ID, write_mesh, write_resources

TOKEN = "t0ken"


@pytest.fixture
async def registry(tmp_path):
    async with TestServer(EmbeddedRegistry(tmp_path, TOKEN).app()) as server, Registry(str(server.make_url("")), TOKEN) as client:
        yield client


@pytest.fixture
async def watch(registry):
    watch = RegistryWatch(registry)
    task = asyncio.create_task(watch.run())
    yield watch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(watch, holds):
    async with asyncio.timeout(60):
        while not holds():
            await watch.changed.wait()
            watch.changed.clear()


def workload(name="reviews-v1", **values):
    return Registration(name, "reviews", "127.7.0.3", 9080, "default", "v1", "bookinfo-reviews", "240.240.0.2", **values)


@pytest.mark.parametrize("missing", ["devmesh/mesh-id", "devmesh/generation"])
def test_a_kv_without_mesh_or_generation_is_no_configuration(missing):
    pairs = [Pair(key, b"x", 1) for key in ("devmesh/mesh-id", "devmesh/generation") if key != missing]
    assert read_configuration(pairs, 1) is None


async def test_a_configuration_is_taken_at_its_generation_and_not_before(registry, watch):
    await write_mesh(registry, "m1", {"services": []}, {"a": 1})
    generation = await write_resources(registry, ())
    await until(watch, lambda: watch.configuration is not None)
    assert (watch.configuration.mesh_id, watch.configuration.generation) == ("m1", generation)
    assert watch.configuration.settings == {"a": 1}
    await registry.kv_put("devmesh/mesh-config", b'{"a": 2}')
    await registry.register(workload())
    await until(watch, lambda: "reviews" in watch.instances)
    assert watch.configuration.settings == {"a": 1}
    await write_resources(registry, ())
    await until(watch, lambda: watch.configuration.settings == {"a": 2})


async def test_health_changes_reach_the_instances(registry, watch):
    await registry.register(workload())
    await until(watch, lambda: "reviews" in watch.instances)
    await registry.ttl_pass("service:reviews-v1")
    await until(watch, lambda: watch.instances["reviews"]["reviews-v1"].status == "passing")


async def test_a_deregistered_instance_goes_while_the_mesh_is_there(registry, watch):
    await write_mesh(registry, "m1", {}, {})
    await write_resources(registry, ())
    await registry.register(workload())
    await until(watch, lambda: "reviews" in watch.instances and watch.link is Link.SYNCED)
    await registry.deregister("reviews-v1")
    await until(watch, lambda: not watch.instances)


async def test_what_was_there_at_the_start_is_inherited_and_what_came_later_is_not(registry):
    await registry.register(workload())
    watch = RegistryWatch(registry)
    task = asyncio.create_task(watch.run())
    await until(watch, lambda: watch.instances_known)
    await registry.register(workload("reviews-v2"))
    await until(watch, lambda: len(watch.instances["reviews"]) == 2)
    assert watch.inherited == {"reviews-v1"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_registry_that_does_not_answer_is_unreachable_and_tried_again():
    async with Registry("http://127.0.0.1:9", TOKEN) as registry:
        watch = RegistryWatch(registry)
        task = asyncio.create_task(watch.run())
        async with asyncio.timeout(60):
            while watch.link is not Link.UNREACHABLE:
                await watch.link_changed.wait()
        assert "does not answer" in watch.problem
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_registry_whose_mesh_is_written_after_our_start_has_not_been_away(registry, watch):
    await registry.register(workload())
    await until(watch, lambda: watch.instances_known)
    await write_mesh(registry, "m1", {}, {})
    await write_resources(registry, ())
    await until(watch, lambda: watch.configuration is not None)
    assert watch.returned == -math.inf
    await registry.kv_delete(MESH_ID)
    async with asyncio.timeout(60):
        while watch.link is not Link.LOST:
            await watch.link_changed.wait()
    await write_mesh(registry, "m1", {}, {})
    async with asyncio.timeout(60):
        while watch.link is not Link.SYNCED:
            await watch.link_changed.wait()
    assert watch.returned > -math.inf
