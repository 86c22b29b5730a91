"""What each proxy is to have and what it said about it: snapshots out, long polls answered, acknowledgements counted.

Everything here runs on one event loop; a change wakes the waiters and every waiter looks again.
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
from devmesh.xds.rest import TYPE_URLS, DiscoveryRequest, DiscoveryResponse, is_due
from devmesh.xds.snapshot import Snapshot

SidecarState = Literal["acked", "nacked", "pending", "disconnected"]
# A proxy must have acknowledged these; `names` counts once it has asked for them.
REQUIRED_TYPES = frozenset({"listeners", "routes", "clusters", "endpoints"})
# Between two polls a proxy has none open; longer than this without a word and it is gone.
SILENCE_SECONDS = 3.0
MAX_GENERATIONS = 200


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

    def acked_sequence(self) -> int:
        """Give the newest snapshot in force for every type it must or does ask for."""
        wanted = REQUIRED_TYPES | self.types.keys()
        return min((self.types[name].acked_sequence if name in self.types else 0) for name in wanted)

    def recognise(self) -> None:
        """A snapshot that the proxy runs already, since it refused what came between, needs no sending and no answer."""
        version = self.snapshot.version if self.snapshot is not None else ""
        if all(state.answered and state.in_force == version for state in self.types.values()):
            for state in self.types.values():
                state.acked_sequence = self.sequence

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
        self._changed = asyncio.Event()
        self._nonces = 0
        # A restarted control plane must not take an old nonce for one of its own.
        self._life = uuid.uuid4().hex[:8]

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool], seconds: float, *, look_again: float = math.inf) -> bool:
        """Wait at most `seconds` until `holds()`; whether it did. `look_again` is for what changes by silence: nothing wakes us then."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while not holds():
            left = ends - loop.time()
            if left <= 0:
                return False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, look_again))
        return True

    # Configuration in

    def replace(self, snapshots: Mapping[str, tuple[str, Snapshot]]) -> frozenset[str]:
        """Give each workload (name -> namespace and snapshot) its snapshot, forget the others; the names whose version changed."""
        changed = set()
        for name, (namespace, snapshot) in snapshots.items():
            proxy = self.proxies.setdefault(name, Proxy(name, namespace))
            if proxy.snapshot is None or proxy.snapshot.version != snapshot.version:
                proxy.snapshot = snapshot
                proxy.sequence += 1
                changed.add(name)
                proxy.recognise()
        for name in self.proxies.keys() - snapshots.keys():
            del self.proxies[name]
        self.wake()
        return frozenset(changed)

    def record(self, generation: Generation) -> None:
        self.generations[generation.id] = generation
        while len(self.generations) > MAX_GENERATIONS:
            self.generations.popitem(last=False)
        self.wake()

    # Polls

    async def poll(self, workload: str, kind: str, request: DiscoveryRequest, hold: float) -> DiscoveryResponse | None:
        """Give the next resources of that type, or None when nothing changed within `hold` seconds (304). KeyError: no such workload."""
        proxy = self.proxies[workload]
        state = proxy.types.setdefault(kind, TypeState())
        self._mark(proxy, kind, state, request)
        proxy.open_polls += 1
        try:
            await self.until(lambda: self.proxies.get(workload) is not proxy or _is_due(proxy, state, request), hold)
            if self.proxies.get(workload) is not proxy or not _is_due(proxy, state, request):
                return None
            return self._send(proxy, kind, state)
        finally:
            proxy.open_polls -= 1
            proxy.last_seen = self.clock()

    def _send(self, proxy: Proxy, kind: str, state: TypeState) -> DiscoveryResponse | None:
        if proxy.snapshot is None:
            return None
        self._nonces += 1
        state.sent_nonce, state.sent_sequence, state.answered = f"{self._life}-{self._nonces}", proxy.sequence, False
        self._count("pushes", kind)
        return DiscoveryResponse(proxy.snapshot.version, state.sent_nonce, proxy.snapshot.resources.get(kind, ()), TYPE_URLS[kind])

    def _mark(self, proxy: Proxy, kind: str, state: TypeState, request: DiscoveryRequest) -> None:
        """Read the acknowledgement in a request: an error refuses what was sent, a version says what is in force."""
        proxy.last_seen = self.clock()
        state.in_force, state.answered = request.version, state.answered or request.nonce == state.sent_nonce
        if request.error is not None and request.nonce == state.sent_nonce and state.sent_sequence > state.nacked_sequence:
            state.nacked_sequence, state.error = state.sent_sequence, request.error
            self._count("rejects", kind)
            self.wake()
        if proxy.snapshot is not None and request.version == proxy.snapshot.version:
            state.acked_sequence = proxy.sequence
            proxy.version_acked = request.version
            self._converged(proxy)
            self.wake()

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


def _is_due(proxy: Proxy, state: TypeState, request: DiscoveryRequest) -> bool:
    """By sequence, not by version: a refused version that comes back is offered again."""
    if proxy.snapshot is None:
        return False
    sent_version = proxy.snapshot.version if state.sent_sequence == proxy.sequence else ""
    return is_due(request, proxy.snapshot.version, state.sent_nonce, sent_version)
