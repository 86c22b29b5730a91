"""The registry as the control plane sees it: two blocking queries, one view, one change signal.

A registry that is gone changes nothing here; one that came back without `devmesh/mesh-id` is *lost*: the last view stays.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from devmesh.config.model import Diagnostic, SourcePosition
from devmesh.errors import DevmeshError
from devmesh.registry.client import Instance, Pair, Registry, next_index
from devmesh.registry.resources import (
    GENERATION,
    MESH_CONFIG,
    MESH_ID,
    REMOTES,
    RESOURCES,
    ROOT,
    TOPOLOGY,
    StoredResource,
    decode,
    in_force,
    unsealed,
)

log = logging.getLogger(__name__)
WAIT_SECONDS = 55.0
FIRST_RETRY = 0.1
LAST_RETRY = 3.0


class Link(Enum):
    """How the registry is: never seen, answering, not answering, or answering without our mesh in it."""

    CONNECTING = "connecting"
    SYNCED = "synced"
    UNREACHABLE = "unreachable"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The KV at one generation. `remotes` are the topologies of the meshes that joined. `index` is the KV's, comparable within one `life` of the registry; `broken` could not be read."""

    mesh_id: str
    generation: str
    index: int
    life: int
    topology: Mapping[str, Any]
    settings: Mapping[str, Any]
    resources: tuple[StoredResource, ...]
    broken: tuple[Diagnostic, ...] = ()
    remotes: tuple[Mapping[str, Any], ...] = ()


def read_configuration(pairs: list[Pair], index: int, life: int = 0, token: str = "") -> Configuration | None:
    """`token` opens what is sealed with it. Give None without a mesh id (no mesh in this registry) or without a generation (`up` has not written its resources yet)."""
    values = {pair.key: pair.value for pair in pairs}
    if MESH_ID not in values or GENERATION not in values:
        return None
    resources, broken = [], []
    for pair in pairs:
        if pair.key.startswith(RESOURCES):
            try:
                resources.append(unsealed(decode(pair), token))
            except DevmeshError as error:
                broken.append(Diagnostic("error", "unreadable", SourcePosition(pair.key), error.message, error.hint))
    return Configuration(
        mesh_id=values[MESH_ID].decode(),
        generation=values[GENERATION].decode(),
        index=index,
        life=life,
        topology=orjson.loads(values.get(TOPOLOGY) or b"{}"),
        settings=orjson.loads(values.get(MESH_CONFIG) or b"{}"),
        resources=tuple(in_force(resources)),
        broken=tuple(broken),
        remotes=tuple(orjson.loads(pair.value) for pair in pairs if pair.key.startswith(REMOTES)),
    )


class RegistryWatch:
    """Keeps `configuration` (of the last generation) and `instances` current; `changed` is set at every change of either."""

    def __init__(self, registry: Registry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self.link = Link.CONNECTING
        self.problem = ""
        self.configuration: Configuration | None = None
        self.instances: dict[str, dict[str, Instance]] = {}
        self.instances_known = False
        self.inherited: frozenset[str] = frozenset()
        self.life = 0
        self.changed = asyncio.Event()
        self.link_changed = asyncio.Event()
        self.returned = -math.inf  # when the registry came back last; it was away, or had lost our mesh
        self._seen: dict[str, frozenset[tuple[str, str]]] = {}
        self._stale: set[str] = set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._following("kv", self._follow_kv), name="watch kv")
            tasks.create_task(self._following("health", self._follow_health), name="watch health")

    async def _following(self, what: str, follow: Callable[[], Any]) -> None:
        delay = FIRST_RETRY
        while True:
            started = self._clock()
            try:
                await follow()
            except DevmeshError as error:
                self._set_link(Link.UNREACHABLE, error.message)
                log.warning("watching %s: %s", what, error.message)
            delay = FIRST_RETRY if self._clock() - started > LAST_RETRY else min(2 * delay, LAST_RETRY)
            await asyncio.sleep(delay)

    async def _follow_kv(self) -> None:
        index = 0
        while True:
            given, pairs = await self._registry.kv_list(ROOT, index=index, wait=WAIT_SECONDS)
            self.life += given < index
            index = next_index(index, given)
            self._take_kv(pairs, given)

    def _take_kv(self, pairs: list[Pair], index: int) -> None:
        read = read_configuration(pairs, index, self.life, self._registry.token)
        if read is None:
            self._no_mesh()
            return
        self._set_link(Link.SYNCED, "")
        current = self.configuration
        # Between the transactions of one apply the generation is still the old one: not to be compiled.
        if current is None or (read.mesh_id, read.generation) != (current.mesh_id, current.generation):
            self.configuration = read
            self.changed.set()

    async def _follow_health(self) -> None:
        index = 0
        self._seen = {}
        while True:
            while self.link is Link.LOST:
                await self.link_changed.wait()
                index, self._seen = 0, {}
            given, checks = await self._registry.health_state(index=index, wait=WAIT_SECONDS)
            index = next_index(index, given)
            seen: dict[str, set[tuple[str, str]]] = {}
            for check in checks:
                if check.service:
                    seen.setdefault(check.service, set()).add((check.check_id, check.status))
            await self._take_health({name: frozenset(items) for name, items in seen.items()})

    async def _take_health(self, seen: dict[str, frozenset[tuple[str, str]]]) -> None:
        """Refetch only the services whose checks changed, or that were registered anew by ourselves."""
        stale = {name for name, items in seen.items() if self._seen.get(name) != items} | (self._stale & seen.keys())
        fetched = {name: {i.id: i for i in (await self._registry.health_service(name))[1]} for name in stale}
        gone = self.instances.keys() - seen.keys()
        if gone and not await self._holds_our_mesh():
            return  # an empty registry is no news about endpoints
        self._seen, self._stale = seen, self._stale - stale
        if not self.instances_known:
            self.inherited = frozenset(instance for instances in fetched.values() for instance in instances)
        first, self.instances_known = not self.instances_known, True
        changed = first or bool(gone) or any(self.instances.get(name) != instances for name, instances in fetched.items())
        self.instances = {name: items for name, items in (self.instances | fetched).items() if name not in gone}
        if changed:
            self.changed.set()

    async def _holds_our_mesh(self) -> bool:
        _, pair = await self._registry.kv_get(MESH_ID)
        if pair is None:
            self._no_mesh()
        return pair is not None

    def _no_mesh(self) -> None:
        self.life += 1
        known = self.configuration is not None
        self._set_link(Link.LOST if known else Link.CONNECTING, "the registry holds no mesh (devmesh/mesh-id is missing)")

    def refetch(self, service: str) -> None:
        """We registered an instance: its address may have changed while its check did not."""
        self._stale.add(service)

    def _set_link(self, link: Link, problem: str) -> None:
        if link is not self.link:
            log.log(logging.INFO if link is Link.SYNCED else logging.WARNING, "registry %s %s", link.value, problem)
            if link is Link.SYNCED and self.configuration is not None:  # not at the beginning
                self.returned = self._clock()
            self.link = link
            self.link_changed.set()
            self.link_changed = asyncio.Event()
        self.problem = problem
