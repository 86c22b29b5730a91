"""What each proxy is to have and what it said about it: snapshots out, long polls answered, acknowledgements counted.

Everything here runs on one event loop; a change wakes those whom it concerns, and they look again.
"""

import asyncio
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from devmesh.config.model import Diagnostic
from devmesh.xds.rest import TYPE_URLS, AggregatedResponse, DiscoveryRequest, DiscoveryResponse, is_due
from devmesh.xds.snapshot import Snapshot

SidecarState = Literal["acked", "nacked", "pending", "disconnected"]
# A proxy must have acknowledged these; `names` counts once it has asked for them.
REQUIRED_TYPES = frozenset({"listeners", "routes", "clusters", "endpoints"})
# Between two polls a proxy has none open; longer than this without a word and it is gone.
SILENCE_SECONDS = 3.0
MAX_GENERATIONS = 200


class Signal:
    """Wakes whoever waits for it now."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, holds: Callable[[], bool], seconds: float, *, look_again: float = math.inf) -> bool:
        """Wait at most `seconds` until `holds()`; whether it did. `look_again` is for what changes by silence: nothing wakes us then."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while not holds():
            left = ends - loop.time()
            if left <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, look_again)):
                    await self._event.wait()
        return True


@dataclass(slots=True)
class TypeState:
    sent_sequence: int = 0
    sent_nonce: str = ""
    answered: bool = True  # it has said something of what was sent last
    in_force: str = ""  # the version that it runs, by its last word
    acked_sequence: int = 0
    nacked_sequence: int = 0
    error: str = ""


@dataclass(slots=True)
class Proxy:
    """What the control plane knows of one workload's proxy; times are the clock's seconds."""

    workload: str
    namespace: str
    snapshot: Snapshot | None = None
    sequence: int = 0
    types: dict[str, TypeState] = field(default_factory=dict)
    open_polls: int = 0
    last_seen: float | None = None
    version_acked: str = ""
    healthy: bool | None = None
    detail: str = ""
    restarts: int = 0
    h2_ports: tuple[int, ...] = ()
    calls_out: bool | None = None  # None: it has not reported yet
    sidecar_version: str | None = None  # of the program, as it reports it
    changed: Signal = field(default_factory=Signal)  # another snapshot, or none any more

    def acked_sequence(self) -> int:
        """Give the newest snapshot in force for every type it must or does ask for."""
        wanted = REQUIRED_TYPES | self.types.keys()
        return min((self.types[name].acked_sequence if name in self.types else 0) for name in wanted)

    def take(self, snapshot: Snapshot) -> None:
        """Have another snapshot sent. A type that the proxy runs already, as it did not change or what came between was refused, needs no answer."""
        self.snapshot = snapshot
        self.sequence += 1
        for kind, state in self.types.items():
            if state.answered and state.in_force == snapshot.version_of(kind):
                state.acked_sequence = self.sequence
        self.note_acked()
        self.changed.send()

    def note_acked(self) -> None:
        if self.snapshot is not None and self.acked_sequence() == self.sequence:
            self.version_acked = self.snapshot.version

    def nacked_sequence(self) -> int:
        return max((state.nacked_sequence for state in self.types.values()), default=0)

    def error(self) -> str:
        """Give what it said against the newest snapshot it refused, while that refusal is its last word."""
        refused = [state for state in self.types.values() if state.nacked_sequence > state.acked_sequence]
        return "; ".join(dict.fromkeys(state.error for state in refused))

    def is_connected(self, now: float) -> bool:
        return self.open_polls > 0 or (self.last_seen is not None and now - self.last_seen < SILENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class Generation:
    """One compiled set of resources, and which sequence each proxy got with it.

    `index` is the KV's, comparable within one `life` of the registry; `started` is the clock's.
    """

    id: str
    index: int
    life: int
    diagnostics: tuple[Diagnostic, ...]
    seconds: float
    started: float
    sequences: Mapping[str, int]
    changed: frozenset[str]


class Pushes:
    """The proxies and the generations. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.proxies: dict[str, Proxy] = {}
        self.generations: OrderedDict[str, Generation] = OrderedDict()
        self.counts: dict[tuple[str, str], int] = {}
        self.convergence: list[float] = []
        self.news = Signal()  # of what the proxies say, and of generations
        self._nonces = 0
        # A restarted control plane must not take an old nonce for one of its own.
        self._life = uuid.uuid4().hex[:8]

    # Configuration in

    def replace(self, snapshots: Mapping[str, tuple[str, Snapshot]]) -> frozenset[str]:
        """Give each workload (name -> namespace and snapshot) its snapshot, forget the others; the names whose version changed."""
        changed = set()
        for name, (namespace, snapshot) in snapshots.items():
            proxy = self.proxies.setdefault(name, Proxy(name, namespace))
            if proxy.snapshot is None or proxy.snapshot.version != snapshot.version:
                changed.add(name)
                proxy.take(snapshot)
        for name in self.proxies.keys() - snapshots.keys():
            self.proxies.pop(name).changed.send()
        self.news.send()
        return frozenset(changed)

    def record(self, generation: Generation) -> None:
        self.generations[generation.id] = generation
        while len(self.generations) > MAX_GENERATIONS:
            self.generations.popitem(last=False)
        self.news.send()

    # Polls

    async def poll(self, workload: str, requests: Mapping[str, DiscoveryRequest], hold: float) -> AggregatedResponse | None:
        """Give what is due of these types, of one snapshot; None when nothing became so within `hold` seconds (304). KeyError: no such workload."""
        proxy = self.proxies[workload]
        self._mark(proxy, requests)
        proxy.open_polls += 1
        try:
            await proxy.changed.until(lambda: self.proxies.get(workload) is not proxy or bool(_due(proxy, requests)), hold)
            if self.proxies.get(workload) is not proxy or proxy.snapshot is None:
                return None
            due = {kind: self._send(proxy, proxy.snapshot, kind) for kind in _due(proxy, requests)}
            return AggregatedResponse(proxy.snapshot.version, due) if due else None
        finally:
            proxy.open_polls -= 1
            proxy.last_seen = self.clock()

    def _send(self, proxy: Proxy, snapshot: Snapshot, kind: str) -> DiscoveryResponse:
        self._nonces += 1
        state = proxy.types[kind]
        state.sent_nonce, state.sent_sequence, state.answered = f"{self._life}-{self._nonces}", proxy.sequence, False
        self._count("pushes", kind)
        found, texts = snapshot.resources.get(kind, ()), tuple(snapshot.texts(kind))
        return DiscoveryResponse(snapshot.version_of(kind), state.sent_nonce, found, TYPE_URLS[kind], texts)

    def _mark(self, proxy: Proxy, requests: Mapping[str, DiscoveryRequest]) -> None:
        """Read the acknowledgements in a poll: an error refuses what was sent, a version says what is in force."""
        proxy.last_seen = self.clock()
        before = (proxy.acked_sequence(), proxy.nacked_sequence())
        for kind, request in requests.items():
            self._mark_type(proxy, kind, proxy.types.setdefault(kind, TypeState()), request)
        proxy.note_acked()
        if (proxy.acked_sequence(), proxy.nacked_sequence()) != before:
            self._converged(proxy)
            self.news.send()

    def _mark_type(self, proxy: Proxy, kind: str, state: TypeState, request: DiscoveryRequest) -> None:
        state.in_force, state.answered = request.version, state.answered or request.nonce == state.sent_nonce
        if request.error is not None and request.nonce == state.sent_nonce and state.sent_sequence > state.nacked_sequence:
            state.nacked_sequence, state.error = state.sent_sequence, request.error
            self._count("rejects", kind)
        if proxy.snapshot is not None and request.version == proxy.snapshot.version_of(kind):
            state.acked_sequence = proxy.sequence

    def _converged(self, proxy: Proxy) -> None:
        generation = next(reversed(self.generations.values()), None)
        if generation and proxy.workload in generation.changed and proxy.acked_sequence() == proxy.sequence:
            self.convergence = [*self.convergence[-999:], self.clock() - generation.started]

    def _count(self, what: str, type_name: str) -> None:
        self.counts[what, type_name] = self.counts.get((what, type_name), 0) + 1

    # Answers

    def sidecar_state(self, workload: str, sequence: int) -> tuple[SidecarState, str]:
        """Say what that workload's proxy said of a snapshot: the one with this sequence, or a later one."""
        proxy = self.proxies.get(workload)
        if proxy is None:
            return "disconnected", "no such workload any more"
        if proxy.acked_sequence() >= sequence:
            return "acked", ""
        if not proxy.is_connected(self.clock()):
            return "disconnected", ""
        if proxy.nacked_sequence() >= sequence:
            return "nacked", proxy.error()
        return "pending", ""

    def generation_for(self, generation_id: str, index: int, life: int) -> Generation | None:
        """Find that generation, or the one whose compile read the KV at or after `index`: writes in quick succession share a compile."""
        exact = self.generations.get(generation_id)
        if exact is not None:
            return exact
        return next((later for later in self.generations.values() if index and later.life == life and later.index >= index), None)

    def is_settled(self, generation: Generation) -> bool:
        return all(self.sidecar_state(name, sequence)[0] != "pending" for name, sequence in generation.sequences.items())

    def connected(self) -> Iterable[Proxy]:
        return [proxy for proxy in self.proxies.values() if proxy.is_connected(self.clock())]


def _due(proxy: Proxy, requests: Mapping[str, DiscoveryRequest]) -> list[str]:
    """The types that are to be answered now.

    By sequence, not by version: a refused version that comes back is offered again, and so is, with any later snapshot, all that was refused
    with another type; else a proxy would run a mixture that nobody compiled.
    """
    snapshot = proxy.snapshot
    if snapshot is None:
        return []
    return [kind for kind, request in requests.items() if _is_due(snapshot.version_of(kind), proxy.types[kind], proxy.sequence, request)]


def _is_due(version: str, state: TypeState, sequence: int, request: DiscoveryRequest) -> bool:
    return is_due(request, version, state.sent_nonce, version if state.sent_sequence == sequence else "")
