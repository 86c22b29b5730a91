"""Injected faults as runtimes care for them: they end when their time is over, and some hold a workload's app."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

from devmesh.config.injection import FAULT_KIND, selected
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.registry.resources import MESH_ID, delete_resources, list_resources, read_topology

FAULT_CHECK_SECONDS = 1.0
Held = Mapping[str, str]


async def expire_faults(registry: Registry) -> None:
    """Remove the faults whose time is over."""
    now = time.time_ns() / 1e9
    gone = [
        (one.owner, one.key)
        for one in await list_resources(registry, "fault")
        if float(one.document.get("spec", {}).get("until") or now + 1) <= now
    ]
    if gone:
        await delete_resources(registry, gone)


async def held_apps(registry: Registry) -> dict[str, str]:
    """Whose apps are to stand still, by workload, with the fault that wants it. Raises DevmeshError when the registry has been lost."""
    pauses = [one for one in await list_resources(registry) if one.key.kind == FAULT_KIND and one.document.get("spec", {}).get("pause")]
    if not pauses:
        if (await registry.kv_get(MESH_ID))[1] is None:
            raise DevmeshError("the registry came back empty: what it said last holds", "devmesh down, then devmesh up")
        return {}
    topology = await read_topology(registry)
    named = {workload.name: fault.key.name for fault in pauses for workload in selected(topology, fault.document["spec"]["target"])}
    return {name: fault for name, fault in named.items() if (workload := topology.workload(name)) is not None and not workload.gateway}


async def watch_faults(registry_url: str, token: str, stopping: asyncio.Event, hold: Callable[[Registry], Awaitable[object]]) -> None:
    """Remove faults whose time is over and `hold` what is to stand still, once a second, until `stopping`."""
    async with Registry(registry_url, token) as registry:
        while not stopping.is_set():
            with contextlib.suppress(DevmeshError):
                await expire_faults(registry)
                await hold(registry)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), FAULT_CHECK_SECONDS)
