"""Retries, circuit breakers and outlier ejection: pure decisions; clock and chance are arguments.

Envoy: "Router" filter docs for `x-envoy-retry-on`, "Outlier detection" and "Circuit breaking" architecture pages.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from devmesh.sidecar.config import CircuitBreakers, HeaderMatcher, OutlierDetection, RetryPolicy
from devmesh.sidecar.message import Headers, get_header

GATEWAY_ERRORS = frozenset({502, 503, 504})
GRPC_CODES = {"cancelled": b"1", "deadline-exceeded": b"4", "internal": b"13", "resource-exhausted": b"8", "unavailable": b"14"}


class Failure(Enum):
    """How an attempt ended without a response."""

    NONE = "none"
    CONNECT = "connect"  # refused, timed out or TLS failed: the request never left
    RESET_BEFORE_REQUEST = "reset_before_request"
    RESET = "reset"  # the upstream closed before response headers
    TIMEOUT = "timeout"  # per-try timeout


@dataclass(frozen=True, slots=True)
class Outcome:
    failure: Failure
    status: int = 0
    headers: Headers = field(default_factory=list)


def should_retry(policy: RetryPolicy, outcome: Outcome) -> bool:
    on = policy.retry_on
    if outcome.failure is not Failure.NONE:
        return _retry_failure(on, outcome.failure)
    if get_header(outcome.headers, b"x-envoy-ratelimited") is not None:
        # Retried for this and for nothing else, whatever the status (observed).
        return "envoy-ratelimited" in on
    return _retry_status(policy, outcome) or _retry_grpc(on, outcome.headers)


def _retry_failure(on: frozenset[str], failure: Failure) -> bool:
    if failure is Failure.CONNECT and "connect-failure" in on:
        return True
    if failure in (Failure.CONNECT, Failure.RESET_BEFORE_REQUEST) and "reset-before-request" in on:
        return True
    return not on.isdisjoint({"5xx", "gateway-error", "reset"})


def _retry_status(policy: RetryPolicy, outcome: Outcome) -> bool:
    on, status = policy.retry_on, outcome.status
    if status >= 500 and "5xx" in on:
        return True
    if status in GATEWAY_ERRORS and "gateway-error" in on:
        return True
    if status == 409 and "retriable-4xx" in on:
        return True
    if status in policy.retriable_status_codes and "retriable-status-codes" in on:
        return True
    return "retriable-headers" in on and any(_matches(m, outcome) for m in policy.retriable_headers)


def _matches(matcher: HeaderMatcher, outcome: Outcome) -> bool:
    if matcher.name == b":status":
        return matcher.matches(b"%d" % outcome.status)
    return matcher.matches(get_header(outcome.headers, matcher.name))


def _retry_grpc(on: frozenset[str], headers: Headers) -> bool:
    status = get_header(headers, b"grpc-status")
    return status is not None and any(name in on and code == status for name, code in GRPC_CODES.items())


def backoff(policy: RetryPolicy, attempt: int, rng: random.Random) -> float:
    """Fully jittered exponential: uniform in [0, min(base * (2^n - 1), max)) for the n-th retry, in seconds."""
    return rng.random() * min(policy.base_interval * ((1 << attempt) - 1), policy.max_interval)


@dataclass(slots=True)
class Recent:
    """How many requests have begun within `interval` seconds, forgotten by tenths of it (Envoy's budget_interval)."""

    interval: float
    _tenths: deque[list[int]] = field(default_factory=deque)  # number of the tenth, requests that began in it

    def began(self, now: float) -> None:
        tenth = int(now * 10 / self.interval)
        if self._tenths and self._tenths[-1][0] == tenth:
            self._tenths[-1][1] += 1
        else:
            self._tenths.append([tenth, 1])
            self._forget(tenth)

    def count(self, now: float) -> int:
        self._forget(int(now * 10 / self.interval))
        return sum(requests for _, requests in self._tenths)

    def _forget(self, tenth: int) -> None:
        while self._tenths and self._tenths[0][0] <= tenth - 10:
            self._tenths.popleft()


@dataclass(slots=True)
class ClusterLoad:
    """What is under way to one cluster, held against its CircuitBreakers."""

    connections: int = 0
    pending: int = 0
    requests: int = 0
    retries: int = 0
    overflows: int = 0
    recent: Recent | None = None  # where the retry budget has an interval

    def admits_retry(self, limits: CircuitBreakers, now: float) -> bool:
        """A budget takes the place of max_retries; with an interval it is of the requests that began in it, whether over or not."""
        if limits.retry_budget_percent is None:
            return self.retries < limits.max_retries
        counted = self.requests + self.pending if self.recent is None else self.recent.count(now)
        return self.retries < max(limits.retry_budget_min, int(counted * limits.retry_budget_percent / 100))


class EndpointLoad:
    """The requests under way at one endpoint, of however many clusters; `pools` of it count here."""

    __slots__ = ("key", "pools", "requests")

    def __init__(self, key: str) -> None:
        self.key = key  # `address:port`
        self.requests = self.pools = 0


@dataclass(slots=True)
class HostHealth:
    """One endpoint's recent answers."""

    consecutive_5xx: int = 0
    consecutive_gateway: int = 0
    consecutive_local: int = 0
    ejections: int = 0
    ejected_at: float | None = None


@dataclass(slots=True)
class OutlierDetector:
    """Ejects endpoints of one cluster. Keys are `address:port`; times are monotonic seconds."""

    settings: OutlierDetection
    hosts: dict[str, HostHealth] = field(default_factory=dict)
    last_tick: float = 0.0

    def keep(self, endpoints: Iterable[str]) -> None:
        wanted = set(endpoints)
        self.hosts = {key: self.hosts.get(key, HostHealth()) for key in wanted}

    def ejected(self) -> frozenset[str]:
        return frozenset(key for key, host in self.hosts.items() if host.ejected_at is not None)

    def answered(self, key: str, status: int, now: float, rng: random.Random) -> bool:
        """Count a response; True when it got the endpoint ejected."""
        host = self.hosts.get(key)
        if host is None:  # it left the cluster while the request was under way
            return False
        host.consecutive_local = 0
        if status < 500:
            host.consecutive_5xx = host.consecutive_gateway = 0
            return False
        host.consecutive_5xx += 1
        host.consecutive_gateway = host.consecutive_gateway + 1 if status in GATEWAY_ERRORS else 0
        return self._judge(host, now, rng)

    def failed_locally(self, key: str, now: float, rng: random.Random) -> bool:
        """Count a connect failure, timeout or reset: a gateway failure unless local errors are split off."""
        if not self.settings.split_local_origin:
            return self.answered(key, 503, now, rng)
        host = self.hosts.get(key)
        if host is None:
            return False
        host.consecutive_local += 1
        if not 0 < self.settings.consecutive_local_origin_failure <= host.consecutive_local:
            return False
        host.consecutive_local = 0
        return self._eject(host, self.settings.enforcing_consecutive_local_origin_failure, now, rng)

    def _judge(self, host: HostHealth, now: float, rng: random.Random) -> bool:
        """Counters start again when they reach their limit, ejected or not."""
        settings = self.settings
        if settings.consecutive_gateway_failure and host.consecutive_gateway >= settings.consecutive_gateway_failure:
            host.consecutive_gateway = 0
            if self._eject(host, settings.enforcing_consecutive_gateway_failure, now, rng):
                return True
        if settings.consecutive_5xx and host.consecutive_5xx >= settings.consecutive_5xx:
            host.consecutive_5xx = 0
            return self._eject(host, settings.enforcing_consecutive_5xx, now, rng)
        return False

    def _eject(self, host: HostHealth, enforcing: int, now: float, rng: random.Random) -> bool:
        if host.ejected_at is not None or rng.random() * 100 >= enforcing or not self._may_eject():
            return False
        host.ejected_at = now
        if host.ejections * self.settings.base_ejection_time < self.settings.max_ejection_time + self.settings.base_ejection_time:
            host.ejections += 1
        return True

    def _may_eject(self) -> bool:
        """The one to eject counts too: with Istio's default of 10 % nothing is ejected from three workloads (observed on Envoy 1.40)."""
        out = sum(host.ejected_at is not None for host in self.hosts.values())
        if self.settings.always_eject_one and out == 0:
            return True
        return 100 * (out + 1) <= self.settings.max_ejection_percent * len(self.hosts)

    def tick(self, now: float) -> None:
        """Bring back what has served its time: base_ejection_time x ejections, at most max_ejection_time, on the interval only."""
        if now - self.last_tick < self.settings.interval:
            return
        self.last_tick = now
        for host in self.hosts.values():
            if host.ejected_at is None:
                host.ejections = max(0, host.ejections - 1)
                continue
            term = min(self.settings.base_ejection_time * host.ejections, self.settings.max_ejection_time)
            if now - host.ejected_at >= term:
                host.ejected_at = None
                host.consecutive_5xx = host.consecutive_gateway = host.consecutive_local = 0
