"""What runtimes take from the registry of faults: which end, and whose apps are held."""

import asyncio

import pytest

from devmesh.config.injection import FaultRequest
from devmesh.errors import DevmeshError
from devmesh.registry.resources import list_resources, write_resources
from devmesh.runtimes.faults import expire_faults, held_apps, watch_faults
from tests.runtimes.faulty import TOKEN, empty_registry, mesh_registry, stored


@pytest.fixture
async def registry(tmp_path):
    async with mesh_registry(tmp_path) as client:
        yield client


async def test_a_pause_holds_every_app_of_its_target_and_other_faults_hold_none(registry):
    assert await held_apps(registry) == {}
    await write_resources(registry, [stored("f1", FaultRequest("api", pause=True)), stored("f2", FaultRequest("web", kill=True))])
    assert await held_apps(registry) == {"api-v1": "f1", "api-v2": "f1"}


async def test_a_pause_that_was_applied_holds_too_and_none_holds_the_gateway(registry):
    await write_resources(
        registry, [stored("f1", FaultRequest("web-v1", pause=True), owner="apply"), stored("f2", FaultRequest("gate", pause=True))]
    )
    assert await held_apps(registry) == {"web-v1": "f1"}


async def test_a_registry_that_came_back_empty_lets_nobody_go(tmp_path):
    async with empty_registry(tmp_path) as client:
        with pytest.raises(DevmeshError, match="came back empty"):
            await held_apps(client)


async def test_only_faults_whose_time_is_over_end(registry):
    await write_resources(
        registry,
        [
            stored("over", FaultRequest("web", pause=True, lifetime=1)),
            stored("endless", FaultRequest("web", pause=True)),
            stored("later", FaultRequest("web", pause=True, lifetime=1), injected=1e12),
        ],
    )
    await expire_faults(registry)
    assert sorted(one.key.name for one in await list_resources(registry)) == ["endless", "later"]


async def test_a_look_comes_after_what_is_over_has_ended(registry):
    await write_resources(registry, [stored("over", FaultRequest("web", pause=True, lifetime=1))])
    stopping = asyncio.Event()
    found = []

    async def hold(client):
        found.append(await held_apps(client))
        stopping.set()

    async with asyncio.timeout(60):
        await watch_faults(registry.url, TOKEN, stopping, hold)
    assert found == [{}]
