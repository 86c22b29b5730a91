"""Load balancers: pure choices among a cluster's usable endpoints.

Envoy's "Supported load balancers"; ring hash and Maglev hash `address:port` with xxh64 as Envoy does, so that both send a key alike.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import xxhash

from devmesh.sidecar.config import Cluster, Endpoint, HashPolicy
from devmesh.sidecar.message import RequestHead, get_header
from devmesh.sidecar.routing import cookie

MAGLEV_TABLE_SIZE = 65537  # Envoy's default table_size
Active = Callable[[str], int]  # requests under way at `address:port`


def key_of(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}"


@dataclass(frozen=True, slots=True)
class Hash:
    """The route's hash of a request, and the cookie to set when one was made for it."""

    value: int | None
    set_cookie: bytes | None = None


def request_hash(policies: tuple[HashPolicy, ...], head: RequestHead, source_ip: str, rng: random.Random) -> Hash:
    """RouteAction.hash_policy combined as Envoy: rotate left by one, then xor."""
    total: int | None = None
    made: bytes | None = None
    for policy in policies:
        value, new_cookie = _policy_value(policy, head, source_ip, rng)
        made = made or new_cookie
        if value is None:
            continue
        digest = xxhash.xxh64_intdigest(value)
        total = digest if total is None else (((total << 1) | (total >> 63)) & (2**64 - 1)) ^ digest
        if policy.terminal:
            break
    return Hash(total, made)


def _policy_value(policy: HashPolicy, head: RequestHead, source_ip: str, rng: random.Random) -> tuple[bytes | None, bytes | None]:
    if policy.kind == "header":
        return (head.authority if policy.name in (b":authority", b"host") else get_header(head.headers, policy.name)), None
    if policy.kind == "source_ip":
        return source_ip.encode(), None
    if policy.kind == "query":
        return _query_value(head, policy.name), None
    value = cookie(head.headers, policy.name)
    if value is not None or policy.cookie_ttl is None:
        return value, None
    made = b"%016x" % rng.getrandbits(64)
    age = b"; Max-Age=%d" % int(policy.cookie_ttl) if policy.cookie_ttl else b""
    path = b"; Path=" + policy.cookie_path if policy.cookie_path else b""
    return made, policy.name + b'="' + made + b'"' + age + path + b"; HttpOnly"


def _query_value(head: RequestHead, name: bytes) -> bytes | None:
    for pair in head.target.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return None


@dataclass(slots=True)
class Balancer:
    """Chooses for one cluster; rebuilt when its endpoints or ejections change."""

    cluster: Cluster
    ejected: frozenset[str] = frozenset()
    _usable: tuple[Endpoint, ...] = ()
    _credit: dict[str, float] = field(default_factory=dict)
    _ring: list[tuple[int, Endpoint]] = field(default_factory=list)
    _ring_keys: list[int] = field(default_factory=list)
    _maglev: list[Endpoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._usable = usable(self.cluster, self.ejected)
        if self.cluster.lb_policy == "RING_HASH" and self._usable:
            self._ring = build_ring(self._usable, *self.cluster.ring_hash)
            self._ring_keys = [point for point, _ in self._ring]
        if self.cluster.lb_policy == "MAGLEV" and self._usable:
            self._maglev = build_maglev(self._usable)

    def choose(
        self, hash_value: int | None, active: Active, rng: random.Random, tried: frozenset[str] = frozenset(), tries: int = 1
    ) -> Endpoint | None:
        """One endpoint, or None when no one is healthy. A retry re-picks up to `tries` times to leave `tried` (previous_hosts)."""
        pick = self._pick(hash_value, active, rng)
        for _ in range(tries if tried else 0):
            if pick is None or key_of(pick) not in tried:
                break
            pick = self._pick(None if hash_value is None else rng.getrandbits(64), active, rng)
        return pick

    def _pick(self, hash_value: int | None, active: Active, rng: random.Random) -> Endpoint | None:
        hosts = self._usable
        if not hosts:
            return None
        if len(hosts) == 1:
            return hosts[0]
        policy = self.cluster.lb_policy
        if policy == "ROUND_ROBIN":
            return self._round_robin(hosts)
        if policy == "RING_HASH":
            point = rng.getrandbits(64) if hash_value is None else hash_value
            return self._ring[bisect.bisect_left(self._ring_keys, point) % len(self._ring)][1]
        if policy == "MAGLEV":
            point = rng.getrandbits(64) if hash_value is None else hash_value
            return self._maglev[point % len(self._maglev)]
        if policy == "RANDOM":
            return _weighted(hosts, {}, rng)
        return self._least_request(hosts, active, rng)

    def _least_request(self, hosts: tuple[Endpoint, ...], active: Active, rng: random.Random) -> Endpoint:
        """Power of N choices; unequal weights are lowered by load as weight / (active + 1)."""
        if len({host.weight for host in hosts}) > 1:
            return _weighted(hosts, {key_of(h): h.weight / (active(key_of(h)) + 1) for h in hosts}, rng)
        return min((rng.choice(hosts) for _ in range(self.cluster.least_request_choices)), key=lambda host: active(key_of(host)))

    def _round_robin(self, hosts: tuple[Endpoint, ...]) -> Endpoint:
        """Smooth weighted round robin: each gains its weight, the richest pays the total."""
        total = 0
        best = hosts[0]
        for host in hosts:
            key = key_of(host)
            total += host.weight
            self._credit[key] = self._credit.get(key, 0) + host.weight
            if self._credit[key] > self._credit.get(key_of(best), 0):
                best = host
        self._credit[key_of(best)] -= total
        return best


def usable(cluster: Cluster, ejected: frozenset[str]) -> tuple[Endpoint, ...]:
    """The healthy endpoints of the highest priority that has any; all of it below the panic threshold."""
    for priority in sorted({endpoint.priority for endpoint in cluster.endpoints}):
        level = tuple(e for e in cluster.endpoints if e.priority == priority)
        healthy = tuple(e for e in level if e.healthy and key_of(e) not in ejected)
        if 100.0 * len(healthy) < cluster.panic_threshold * len(level):
            return level
        if healthy:
            return healthy
    return ()


def _weighted(hosts: tuple[Endpoint, ...], weights: Mapping[str, float], rng: random.Random) -> Endpoint:
    return rng.choices(hosts, [weights.get(key_of(h), h.weight) for h in hosts])[0]


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


def build_maglev(hosts: tuple[Endpoint, ...]) -> list[Endpoint]:
    """Google's Maglev table over equal or weighted hosts (Envoy maglev_lb.cc)."""
    size = MAGLEV_TABLE_SIZE
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
    return [entry for entry in table if entry is not None]
