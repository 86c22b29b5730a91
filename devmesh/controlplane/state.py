"""From what the registry says to what the proxies are to have: one loop, one compile at a time, off the event loop."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from devmesh.config.loader import load_value
from devmesh.config.model import Diagnostic, Resource
from devmesh.config.topology import Topology, Workload
from devmesh.controlplane.push import Generation, Pushes
from devmesh.controlplane.trust import Trust
from devmesh.controlplane.watch import Configuration, RegistryWatch
from devmesh.registry.resources import StoredResource
from devmesh.telemetry_setup import Telemetry
from devmesh.xds.snapshot import Snapshot

log = logging.getLogger(__name__)
# Ten workloads that become ready within this share one compile.
DEBOUNCE_SECONDS = 0.01
DEFAULT_TTL = 15.0


@dataclass(frozen=True, slots=True)
class CompileInput:
    """`healthy` are the names of the workloads that may get traffic."""

    topology: Topology
    resources: tuple[Resource, ...]
    settings: Mapping[str, object]
    healthy: frozenset[str]


@dataclass(frozen=True, slots=True)
class CompileOutput:
    """A snapshot for every workload that could be compiled, and why not for the others."""

    snapshots: Mapping[str, Snapshot]
    diagnostics: tuple[Diagnostic, ...]


Compile = Callable[[CompileInput], CompileOutput]


def parse_resource(stored: StoredResource) -> tuple[Resource | None, tuple[Diagnostic, ...]]:
    """Read a stored document again, with the places it had in its own file."""
    loaded = load_value(stored.document, stored.file, stored.key.namespace, owner=stored.owner, lines=stored.lines, columns=stored.columns)
    # What is unsafe to ignore was refused when it was applied; an error here means somebody wrote past `apply`.
    return (loaded.resources[0] if loaded.resources and not loaded.errors else None), loaded.diagnostics


class Resources:
    """Parsed resources, remembered while their stored form stays the same."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[StoredResource, Resource | None, tuple[Diagnostic, ...]]] = {}

    def of(self, configuration: Configuration) -> tuple[tuple[Resource, ...], tuple[Diagnostic, ...]]:
        fresh: dict[str, tuple[StoredResource, Resource | None, tuple[Diagnostic, ...]]] = {}
        for stored in configuration.resources:
            known = self._parsed.get(stored.kv_key)
            fresh[stored.kv_key] = known if known and known[0] == stored else (stored, *parse_resource(stored))
        self._parsed = fresh
        resources = [resource for _, resource, _ in fresh.values() if resource is not None]
        diagnostics = [diagnostic for _, _, found in fresh.values() for diagnostic in found]
        return tuple(replace(resource, order=order) for order, resource in enumerate(resources)), (*configuration.broken, *diagnostics)


class State:
    """Waits for the watch's signal, compiles, hands the snapshots to `pushes`."""

    def __init__(
        self,
        watch: RegistryWatch,
        pushes: Pushes,
        compile_all: Compile,
        *,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry("devmesh-control", None)
        self._watch = watch
        self._pushes = pushes
        self._compile = compile_all
        self._clock = clock
        self._resources = Resources()
        self._last: CompileInput | None = None
        self._parsed: tuple[Configuration, Topology, tuple[Resource, ...], tuple[Diagnostic, ...]] | None = None
        self.ttl = ttl
        self.trust = Trust(watch, pushes, ttl, clock)
        self.topology: Topology | None = None
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self.compiles = 0
        self.compile_seconds = 0.0
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Compile at every change until cancelled; one compile runs at a time and takes all changes so far."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.trust.run(), name="trust in the registry")
            while True:
                await self._watch.changed.wait()
                if not self._is_applied():
                    await asyncio.sleep(DEBOUNCE_SECONDS)
                self._watch.changed.clear()
                configuration = self._watch.configuration
                if configuration is not None and self._watch.instances_known:
                    await self._update(configuration)

    def _is_applied(self) -> bool:
        """Whether there is a new generation, which somebody waits for."""
        return self._parsed is not None and self._watch.configuration is not self._parsed[0]

    async def _update(self, configuration: Configuration) -> None:
        started = self._clock()
        wanted, broken = await self._input(configuration)
        changed: frozenset[str] = frozenset()
        if wanted != self._last:
            with self._telemetry.span(
                "compile", {"devmesh.generation": configuration.generation, "devmesh.resources": len(wanted.resources)}
            ):
                output = await asyncio.to_thread(self._compile, wanted)
            namespaces = {workload.name: workload.namespace for workload in wanted.topology.workloads}
            self._last, self.topology = wanted, wanted.topology
            self.diagnostics = tuple(dict.fromkeys((*broken, *output.diagnostics)))
            self.compiles += 1
            self.compile_seconds = self._clock() - started
            changed = self._pushes.replace(self._with_kept(output, namespaces))
            self._expect_back(wanted.healthy)
        if configuration.generation and configuration.generation not in self._pushes.generations:
            self._record(configuration, started, changed)
        self.synced.set()

    async def _input(self, configuration: Configuration) -> tuple[CompileInput, tuple[Diagnostic, ...]]:
        """Parse only when the generation is another one; endpoints are new each time."""
        if self._parsed is None or self._parsed[0] is not configuration:
            topology = Topology.from_json(configuration.topology).joined(map(Topology.from_json, configuration.remotes))
            resources, broken = await asyncio.to_thread(self._resources.of, configuration)
            self._parsed = (configuration, topology, resources, broken)
        _, topology, resources, broken = self._parsed
        return CompileInput(topology, resources, configuration.settings, self.healthy()), broken

    def _with_kept(self, output: CompileOutput, namespaces: Mapping[str, str]) -> dict[str, tuple[str, Snapshot]]:
        """Leave a workload whose compile failed with what it has: a mistake in one resource never empties a proxy."""
        kept = {name: proxy.snapshot for name, proxy in self._pushes.proxies.items() if proxy.snapshot is not None}
        merged = kept | dict(output.snapshots)
        return {name: (namespace, merged[name]) for name, namespace in namespaces.items() if name in merged}

    def _record(self, configuration: Configuration, started: float, changed: frozenset[str]) -> None:
        generation = Generation(
            id=configuration.generation,
            index=configuration.index,
            life=configuration.life,
            diagnostics=self.diagnostics,
            seconds=self._clock() - started,
            started=started,
            sequences={name: proxy.sequence for name, proxy in self._pushes.proxies.items()},
            changed=changed,
        )
        self._pushes.record(generation)
        log.info("generation %s compiled in %.3f s, %d proxies change", generation.id, generation.seconds, len(changed))

    def _expect_back(self, healthy: frozenset[str]) -> None:
        """After our restart: whoever was healthy is on its way back to us, and an apply waits for it that long."""
        for name in healthy & self._watch.inherited:
            proxy = self._pushes.proxies.get(name)
            if proxy is not None and proxy.last_seen is None:
                proxy.last_seen = self._clock()

    # Health

    def healthy(self) -> frozenset[str]:
        """Who may get traffic."""
        return frozenset(
            instance.id
            for instances in self._watch.instances.values()
            for instance in instances.values()
            if self.trust.is_healthy(instance)
        )

    def given_out(self) -> frozenset[str]:
        """Who was healthy at the last compile: a proxy that has acknowledged everything sends traffic to all of these."""
        return self._last.healthy if self._last else frozenset()

    def workload(self, name: str) -> Workload | None:
        return self.topology.workload(name) if self.topology else None
