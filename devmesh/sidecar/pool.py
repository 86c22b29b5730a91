"""The connections to one endpoint over one transport, who waits for one, and the circuit breakers that say no."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from devmesh.sidecar.balancing import key_of
from devmesh.sidecar.resilience import Failure
from devmesh.sidecar.target import Target
from devmesh.sidecar.upstream_connection import Caller, UpstreamConnection

if TYPE_CHECKING:
    from devmesh.sidecar.upstream import Upstreams


HttpAddress = tuple[str, int, bytes, tuple[str, str] | None]


class Pool:
    """Connections to one endpoint over one transport."""

    __slots__ = ("active", "address", "connecting", "endpoint", "idle", "load", "mesh", "open", "retired", "target", "upstreams", "waiting")

    def __init__(self, upstreams: Upstreams, target: Target) -> None:
        self.upstreams, self.target = upstreams, target
        self.endpoint = key_of(target.endpoint)
        self.active = upstreams.endpoint_load(self.endpoint)
        self.address: HttpAddress | None = None  # how `http_pool` finds it
        self.load = upstreams.load(target.cluster.name)
        self.mesh = target.tls is not None and any(name.startswith(b"istio") for name in target.alpn)  # the peer is a sidecar
        self.idle: list[UpstreamConnection] = []
        self.waiting: deque[tuple[Caller, bytes]] = deque()
        self.open: set[UpstreamConnection] = set()
        self.connecting = 0
        self.retired = False  # its endpoint is gone: what is under way ends, and nothing is kept

    def acquire(self, caller: Caller, method: bytes) -> bool:
        """Give the caller a connection now or later; False when a circuit breaker says no (UO)."""
        load, limits = self.load, self.target.cluster.breakers
        if load.requests >= limits.max_requests:
            return self._overflow()
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                self._start(connection, caller, method)
                return True
        if load.pending >= limits.max_pending_requests:
            return self._overflow()
        load.pending += 1
        self.waiting.append((caller, method))
        if load.connections < limits.max_connections or not (self.open or self.connecting):
            self._connect()
        return True

    def _overflow(self) -> bool:
        self.load.overflows += 1
        self.forget_when_empty()
        return False

    def forget_when_empty(self) -> None:
        if not (self.open or self.connecting or self.waiting):
            self.upstreams.emptied(self)

    def _connect(self) -> None:
        self.load.connections += 1
        self.connecting += 1
        self.upstreams.connect(self)

    def connected(self, connection: UpstreamConnection) -> None:
        self.connecting -= 1
        self.open.add(connection)
        if (limit := self.target.cluster.max_connection_duration) is not None:
            connection.last(limit)
        self._serve(connection)

    def connect_failed(self, details: str) -> None:
        self.connecting -= 1
        self.load.connections -= 1
        if self.waiting:
            caller, _ = self.waiting.popleft()
            self.load.pending -= 1
            caller.failed(Failure.CONNECT, details)
        if self.waiting and not self.open and not self.connecting:
            self._connect()
        self.forget_when_empty()

    def _serve(self, connection: UpstreamConnection) -> None:
        if self.waiting:
            caller, method = self.waiting.popleft()
            self.load.pending -= 1
            self._start(connection, caller, method)
        else:
            connection.rest()
            self.idle.append(connection)

    def _start(self, connection: UpstreamConnection, caller: Caller, method: bytes) -> None:
        self.load.requests += 1
        if self.load.recent is not None:
            self.load.recent.began(self.upstreams.now())
        connection.begin(caller, method)
        caller.connected(connection)

    def forget(self, caller: Caller) -> None:
        """The caller stops waiting for a connection."""
        before = len(self.waiting)
        self.waiting = deque(entry for entry in self.waiting if entry[0] is not caller)
        self.load.pending -= before - len(self.waiting)
        self.forget_when_empty()

    def release(self, connection: UpstreamConnection, *, keep: bool) -> None:
        limit = self.target.cluster.max_requests_per_connection
        if keep and connection in self.open and (not limit or connection.requests < limit) and self._may_keep():
            self.load.requests -= 1
            self._serve(connection)
        else:
            self.closed(connection, counted=True)
            if connection.transport is not None:
                connection.transport.close()

    def _may_keep(self) -> bool:
        return not (self.retired or self.upstreams.draining)

    def closed(self, connection: UpstreamConnection, *, counted: bool = False) -> None:
        if connection not in self.open:
            return
        self.open.discard(connection)
        self.load.connections -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        elif counted or connection.requests:
            self.load.requests -= 1
        # As in acquire: the cluster's other endpoints may hold all its connections, and nothing else would ever serve who waits here.
        if self.waiting and (self.load.connections < self.target.cluster.breakers.max_connections or not (self.open or self.connecting)):
            self._connect()
        self.forget_when_empty()
