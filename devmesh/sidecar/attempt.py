"""One try at one endpoint: a Caller of the upstream pool that reports to its exchange."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devmesh.sidecar.balancing import key_of
from devmesh.sidecar.http1.framing import Body
from devmesh.sidecar.message import ResponseHead
from devmesh.sidecar.record import AttemptRecord
from devmesh.sidecar.resilience import Failure
from devmesh.sidecar.upstream import Target, UpstreamConnection, Upstreams

if TYPE_CHECKING:
    from devmesh.sidecar.exchange import Exchange


class Attempt:
    __slots__ = ("connection", "deadline", "endpoint", "exchange", "over", "pool", "record", "responded", "target", "upstreams")

    def __init__(self, exchange: Exchange, upstreams: Upstreams, target: Target, deadline: float | None) -> None:
        self.exchange, self.upstreams, self.target = exchange, upstreams, target
        self.pool = upstreams.pool(target)
        self.endpoint = key_of(target.endpoint)
        self.deadline = deadline
        self.connection: UpstreamConnection | None = None
        self.responded = False
        self.over = False
        self.record = AttemptRecord(time.time_ns(), endpoint=self.endpoint, cluster=target.cluster.name)

    def start(self, method: bytes) -> bool:
        """False when a circuit breaker is open."""
        self.upstreams.began(self.endpoint)
        if self.pool.acquire(self, method):
            return True
        self.finish()
        return False

    def finish(self) -> None:
        if not self.over:
            self.over = True
            self.record.end_ns = time.time_ns()
            self.upstreams.ended(self.endpoint)

    def abandon(self) -> None:
        """Stop without a word to the exchange."""
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
        if self.over:
            connection.abandon()
            return
        self.connection = connection
        self.exchange.attempt_connected(self, connection)

    def response_head(self, head: ResponseHead, body: Body) -> None:
        if head.status >= 200 or head.status == 101:
            self.responded = True
            self.record.status = head.status
            self.upstreams.observe(self.target.cluster.name, self.endpoint, head.status)
        self.exchange.attempt_head(self, head, body)

    def response_data(self, data: bytes) -> None:
        if not self.over:
            self.exchange.attempt_data(self, data)

    def response_end(self) -> None:
        self.connection = None
        if not self.over:
            self.finish()
            self.exchange.attempt_end(self)

    def failed(self, failure: Failure, details: str) -> None:
        self.connection = None
        if self.over:
            return
        self.finish()
        self.record.error = details
        if self.record.status != 101:  # the end of a tunnel is no failure
            self.upstreams.observe(self.target.cluster.name, self.endpoint, None)
        self.exchange.attempt_failed(self, failure, details)

    def pause_request(self) -> None:
        self.exchange.pause_request()

    def resume_request(self) -> None:
        self.exchange.resume_request()
