"""Load balancers: pure choices among a cluster's usable endpoints.

Envoy's "Supported load balancers"; ring hash and Maglev hash `address:port` with xxh64 as Envoy does, so that both send a key alike.
"""

from __future__ import annotations

import bisect
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import xxhash

from devmesh.sidecar.config import Cluster, Endpoint, HashPolicy
from devmesh.sidecar.message import RequestHead
from devmesh.sidecar.routing import cookie, pseudo_header, query_value
from devmesh.sidecar.slow_start import Warming

MASK: Final = 2**64 - 1
HASHING: Final = frozenset({"RING_HASH", "MAGLEV"})
Active = Callable[[str], int]  # requests under way at `address:port`


def key_of(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}"


@dataclass(frozen=True, slots=True)
class Hash:
    """The route's hash of a request, and the cookie to set when one was made for it."""

    value: int | None
    set_cookie: bytes | None = None


NO_HASH: Final = Hash(None)


def request_hash(policies: tuple[HashPolicy, ...], head: RequestHead, source_ip: str, rng: random.Random) -> Hash:
    """RouteAction.hash_policy combined as Envoy: rotate left by one, then xor; a terminal policy ends it once there is a hash."""
    total: int | None = None
    made: bytes | None = None
    for policy in policies:
        digest, new_cookie = _digest(policy, head, source_ip, rng)
        made = made or new_cookie
        if digest is not None:
            total = digest if total is None else (((total << 1) | (total >> 63)) & MASK) ^ digest
        if policy.terminal and total is not None:
            break
    return Hash(total, made)


def source_hash(ip: str) -> int:
    return xxhash.xxh64_intdigest(ip.encode())


def _digest(policy: HashPolicy, head: RequestHead, source_ip: str, rng: random.Random) -> tuple[int | None, bytes | None]:
    if policy.kind == "header":
        return _header_digest(head, policy.name), None
    if policy.kind == "source_ip":
        return source_hash(source_ip), None
    if policy.kind == "query":
        value = query_value(head.target.partition(b"?")[2], policy.name)
        return (None if value is None else xxhash.xxh64_intdigest(value)), None
    value = cookie(head.headers, policy.name)
    if value is not None:
        return xxhash.xxh64_intdigest(value), None
    if policy.cookie_ttl is None:
        return None, None
    made = b"%016x" % rng.getrandbits(64)
    return xxhash.xxh64_intdigest(made), _set_cookie(policy, policy.cookie_ttl, made)


def _header_digest(head: RequestHead, name: bytes) -> int | None:
    """Several values are sorted, each hash the seed of the next."""
    if name[:1] == b":" or name == b"host":
        value = pseudo_header(head, name)
        return None if value is None else xxhash.xxh64_intdigest(value)
    values = sorted(value for key, value in head.headers if key == name)
    return functools.reduce(lambda seed, value: xxhash.xxh64_intdigest(value, seed=seed), values, 0) if values else None


def _set_cookie(policy: HashPolicy, ttl: float, value: bytes) -> bytes:
    """A lifetime of 0 makes a session cookie."""
    age = b"; Max-Age=%d" % int(ttl) if ttl else b""
    path = b"; Path=" + policy.cookie_path if policy.cookie_path else b""
    return policy.name + b'="' + value + b'"' + age + path + policy.cookie_attributes + b"; HttpOnly"


class Balancer:
    """Chooses for one cluster; rebuilt when its endpoints or ejections change. `endpoints` take the place of the cluster's own, which are names."""

    __slots__ = ("_levels", "cluster", "ejected")

    def __init__(
        self,
        cluster: Cluster,
        ejected: frozenset[str] = frozenset(),
        warming: Warming | None = None,
        endpoints: tuple[Endpoint, ...] | None = None,
    ) -> None:
        self.cluster, self.ejected = cluster, ejected
        resolved = cluster if endpoints is None or endpoints is cluster.endpoints else replace(cluster, endpoints=endpoints)
        self._levels = [(load, _Picker(resolved, hosts, warming)) for load, hosts in priority_loads(resolved, ejected)]

    def choose(
        self, hash_value: int | None, active: Active, rng: random.Random, tried: frozenset[str] = frozenset(), tries: int = 1
    ) -> Endpoint | None:
        """One endpoint, or None when no one is healthy. A retry picks again, up to `tries` times, to leave `tried` (previous_hosts)."""
        if not self._levels:
            return None
        picker = self._levels[0][1] if len(self._levels) == 1 else self._level(rng.getrandbits(64) if hash_value is None else hash_value)
        pick = picker.pick(hash_value, active, rng, 0)
        for attempt in range(1, tries + 1 if tried else 1):
            if key_of(pick) not in tried:
                break
            pick = picker.pick(hash_value, active, rng, attempt)
        return pick

    def _level(self, mark: int) -> _Picker:
        left = mark % 100
        for load, picker in self._levels:
            left -= load
            if left < 0:
                return picker
        return self._levels[-1][1]


@dataclass(slots=True)
class _Picker:
    """One policy over the hosts of one priority."""

    cluster: Cluster
    hosts: tuple[Endpoint, ...]
    warming: Warming | None = None
    _keys: tuple[str, ...] = ()
    _weights: Sequence[float] = ()
    _weighted: bool = False
    _credit: list[float] = field(default_factory=list)
    _ring: list[tuple[int, Endpoint]] = field(default_factory=list)
    _points: list[int] = field(default_factory=list)
    _maglev: tuple[Endpoint, ...] = ()

    def __post_init__(self) -> None:
        self._keys = tuple(map(key_of, self.hosts))
        self._credit = [0.0] * len(self.hosts)
        self._weights = [host.weight for host in self.hosts]
        self._weighted = len(set(self._weights)) > 1
        if self.cluster.lb_policy == "RING_HASH":
            self._ring = build_ring(self.hosts, *self.cluster.ring_hash)
            self._points = [point for point, _ in self._ring]
        elif self.cluster.lb_policy == "MAGLEV":
            self._maglev = build_maglev(self.hosts, self.cluster.maglev_table_size)

    def pick(self, hash_value: int | None, active: Active, rng: random.Random, attempt: int) -> Endpoint:
        hosts = self.hosts
        if len(hosts) == 1:
            return hosts[0]
        policy = self.cluster.lb_policy
        if self.warming is not None and self.warming.under_way():
            weights = [host.weight * self.warming.factor(key) for host, key in zip(hosts, self._keys, strict=True)]
            return self._in_turn(weights) if policy == "ROUND_ROBIN" else self._by_load(weights, active, rng)
        if policy == "ROUND_ROBIN":
            return self._in_turn(self._weights)
        if policy == "RANDOM":  # Envoy's takes no notice of weights
            return rng.choice(hosts)
        if policy in HASHING:
            return self._hashed(rng.getrandbits(64) if hash_value is None else hash_value, attempt)
        return self._least_request(active, rng)

    def _hashed(self, point: int, attempt: int) -> Endpoint:
        """Another attempt is the ring's next point; Maglev's takes another slot (ring_hash_lb.cc, maglev_lb.cc)."""
        if self._ring:
            return self._ring[(bisect.bisect_left(self._points, point) % len(self._ring) + attempt) % len(self._ring)][1]
        if attempt:
            point ^= (MASK - attempt + 1) & MASK
        return self._maglev[point % len(self._maglev)]

    def _least_request(self, active: Active, rng: random.Random) -> Endpoint:
        """Power of N choices between equal hosts."""
        hosts, keys = self.hosts, self._keys
        if self._weighted:
            return self._by_load(self._weights, active, rng)
        best = int(rng.random() * len(hosts))
        for _ in range(self.cluster.least_request_choices - 1):
            other = int(rng.random() * len(hosts))
            if active(keys[other]) < active(keys[best]):
                best = other
        return hosts[best]

    def _by_load(self, weights: Sequence[float], active: Active, rng: random.Random) -> Endpoint:
        """Unequal weights are lowered by load as weight / (active + 1)."""
        return rng.choices(self.hosts, [weight / (active(key) + 1) for weight, key in zip(weights, self._keys, strict=True)])[0]

    def _in_turn(self, weights: Sequence[float]) -> Endpoint:
        """Smooth weighted round robin: each gains its weight, the richest pays the total."""
        total = 0.0
        credit = self._credit
        for index, weight in enumerate(weights):
            credit[index] += weight
            total += weight
        best = max(range(len(credit)), key=credit.__getitem__)
        credit[best] -= total
        return self.hosts[best]


def priority_loads(cluster: Cluster, ejected: frozenset[str]) -> list[tuple[int, tuple[Endpoint, ...]]]:
    """(percent of the requests, hosts) of every priority that gets some: Envoy's "Priority levels" and "Panic threshold" pages.

    A level's health is its healthy share times the overprovisioning factor; what it cannot take goes to the next. Levels below the panic
    threshold use all their hosts, unless the levels together have full health; when all are in panic, the numbers of hosts decide.
    """
    if not cluster.endpoints:
        return []
    levels = [[e for e in cluster.endpoints if e.priority == p] for p in range(max(e.priority for e in cluster.endpoints) + 1)]
    healthy = [tuple(e for e in level if e.healthy and key_of(e) not in ejected) for level in levels]
    health = [min(100, cluster.overprovisioning * len(up) // len(all_)) if all_ else 0 for up, all_ in zip(healthy, levels, strict=True)]
    full = min(100, sum(health))
    panic = [full < 100 and 100.0 * len(up) < cluster.panic_threshold * max(1, len(all_)) for up, all_ in zip(healthy, levels, strict=True)]
    loads = _shares([100 * len(level) // len(cluster.endpoints) for level in levels], 100) if all(panic) else _shares(health, full)
    used = [tuple(all_) if p else up for p, all_, up in zip(panic, levels, healthy, strict=True)]
    return [(load, hosts) for load, hosts in zip(loads, used, strict=True) if load and hosts]


def _shares(health: list[int], full: int) -> list[int]:
    """Percents that sum to 100, filled from the front; what rounding leaves goes to the first that has any."""
    left = 100
    out = []
    for one in health:
        out.append(min(left, one * 100 // full) if full else 0)
        left -= out[-1]
    first = next((index for index, load in enumerate(out) if load), None)
    if first is not None:
        out[first] += left
    return out


def build_ring(hosts: tuple[Endpoint, ...], minimum: int, maximum: int) -> list[tuple[int, Endpoint]]:
    """Envoy's ketama-like ring: `address:port_<i>`, as many points a host as its share of a ring no smaller than `minimum`."""
    total = sum(host.weight for host in hosts)
    smallest = min(host.weight for host in hosts) / total
    scale = min(-(-smallest * minimum // 1) / smallest, float(maximum))
    ring: list[tuple[int, Endpoint]] = []
    current = target = 0.0
    for host in hosts:
        target += scale * host.weight / total
        index = 0
        while current < target:
            ring.append((xxhash.xxh64_intdigest(f"{key_of(host)}_{index}".encode()), host))
            index += 1
            current += 1
    ring.sort(key=lambda pair: pair[0])
    return ring


@functools.lru_cache(maxsize=8)  # 65537 slots take a while, and an ejection that ends brings the old hosts back
def build_maglev(hosts: tuple[Endpoint, ...], size: int) -> tuple[Endpoint, ...]:
    """Google's Maglev table over equal or weighted hosts (Envoy maglev_lb.cc)."""
    largest = max(host.weight for host in hosts)
    offsets = [xxhash.xxh64_intdigest(key_of(h).encode()) % size for h in hosts]
    skips = [xxhash.xxh64_intdigest(key_of(h).encode(), seed=1) % (size - 1) + 1 for h in hosts]
    following = [0] * len(hosts)
    turns = [0.0] * len(hosts)
    table: list[Endpoint | None] = [None] * size
    filled = 0
    iteration = 0
    while filled < size:
        iteration += 1
        for i, host in enumerate(hosts):
            if filled == size or iteration * host.weight < turns[i]:
                continue
            turns[i] += largest
            slot = (offsets[i] + skips[i] * following[i]) % size
            while table[slot] is not None:
                following[i] += 1
                slot = (offsets[i] + skips[i] * following[i]) % size
            table[slot] = host
            following[i] += 1
            filled += 1
    return tuple(entry for entry in table if entry is not None)
