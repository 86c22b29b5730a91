"""One try at one endpoint: a Caller of the upstream pool that reports to its router."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from devmesh.sidecar.http1.framing import Body
from devmesh.sidecar.message import ResponseHead
from devmesh.sidecar.pool import Pool
from devmesh.sidecar.record import AttemptRecord
from devmesh.sidecar.resilience import Failure
from devmesh.sidecar.upstream_connection import Caller, UpstreamConnection

if TYPE_CHECKING:
    from devmesh.sidecar.router import Router


class Attempt(Caller):
    """`wall_ns` is the wall clock, for the attempt's span; None when there will be none."""

    __slots__ = ("connection", "deadline", "endpoint", "over", "pool", "record", "responded", "router", "wall_ns")

    def __init__(self, router: Router, pool: Pool, wall_ns: Callable[[], int] | None) -> None:
        self.router, self.pool, self.wall_ns = router, pool, wall_ns
        self.endpoint = pool.endpoint
        self.deadline: float | None = None  # per_try_timeout
        self.connection: UpstreamConnection | None = None
        self.responded = False
        self.over = False
        self.record = AttemptRecord(0 if wall_ns is None else wall_ns(), 0, pool.endpoint, pool.target.cluster.name)

    def start(self, method: bytes) -> bool:
        """False when a circuit breaker is open."""
        self.pool.active.requests += 1
        if self.pool.acquire(self, method):
            return True
        self.finish()
        return False

    def finish(self) -> None:
        if not self.over:
            self.over = True
            if self.wall_ns is not None:
                self.record.end_ns = self.wall_ns()
            self.pool.active.requests -= 1

    def abandon(self) -> None:
        """Stop without a word to the router."""
        if self.over:
            return
        self.finish()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        else:
            self.pool.forget(self)

    def overdue(self, now: float) -> bool:
        """per_try_timeout, which ends with the response's head."""
        return self.deadline is not None and now >= self.deadline and not self.over and not self.responded

    # Caller
    def connected(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        self.router.connected(self, connection)

    def response_head(self, head: ResponseHead, body: Body) -> None:
        if head.status >= 200 or head.status == 101:
            self.responded = True
            self.record.status = head.status
            self.pool.upstreams.observe(self.pool.target.cluster.name, self.endpoint, head.status)
        self.router.response_head(self, head, body)

    def response_data(self, data: bytes) -> None:
        if not self.over:
            self.router.response_data(self, data)

    def response_end(self) -> None:
        self.connection = None
        if not self.over:
            self.finish()
            self.router.response_end(self)

    def response_pause(self) -> None:
        """Nothing more of the response is here now."""
        if not self.over:
            self.router.exchange.downstream.flush()

    def failed(self, failure: Failure, details: str) -> None:
        self.connection = None
        if self.over:
            return
        self.finish()
        self.record.error = details
        if self.record.status != 101:  # the end of a tunnel is no failure
            self.pool.upstreams.observe(self.pool.target.cluster.name, self.endpoint, None)
        self.router.failed(self, failure, details)

    def pause_request(self) -> None:
        self.router.pause_request()

    def resume_request(self) -> None:
        self.router.resume_request()
