"""Envoy's router filter for one request: its cluster, attempts, retries, timeouts and mirrors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from devmesh.sidecar import replies
from devmesh.sidecar.attempt import Attempt
from devmesh.sidecar.balancing import NO_HASH, request_hash
from devmesh.sidecar.config import Cluster, Endpoint, Route, RouteAction
from devmesh.sidecar.filters import headers
from devmesh.sidecar.forwarding import needs_length
from devmesh.sidecar.http1.framing import Body
from devmesh.sidecar.message import HAS_TOLD, ResponseHead, remove_header, set_header
from devmesh.sidecar.mirror import Mirrored
from devmesh.sidecar.pool import Pool
from devmesh.sidecar.record import Direction, Flag
from devmesh.sidecar.replies import LocalReply
from devmesh.sidecar.resilience import ClusterLoad, Failure, Outcome, backoff, should_retry
from devmesh.sidecar.routing import rewrite_target, select_cluster
from devmesh.sidecar.telemetry import tracing
from devmesh.sidecar.upstream_connection import UpstreamConnection

if TYPE_CHECKING:
    from devmesh.sidecar.exchange import Exchange

REPLAY_LIMIT: Final = 1024 * 1024  # bytes kept for retries: Envoy's per_connection_buffer_limit_bytes
EARLY_LIMIT: Final = 64 * 1024  # bytes taken before there is a connection; reading stops there
NONE_TRIED: Final[frozenset[str]] = frozenset()
EXPECTED_TIMEOUT: Final = b"x-envoy-expected-rq-timeout-ms"


class Router:
    """Made when the route is known, so that a request which a fault aborts was meant for a cluster too, as in Envoy."""

    __slots__ = (
        "_hash",
        "_retrying",
        "_timer",
        "action",
        "attempt",
        "attempts",
        "body",
        "body_bytes",
        "cluster",
        "deadline",
        "exchange",
        "mirrors",
        "replayable",
        "stream_deadline",
        "tried",
        "weighted",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, action: RouteAction) -> None:
        proxy = exchange.proxy
        self.exchange, self.action = exchange, action
        self.deadline: float | None = None if action.timeout is None else exchange.started + action.timeout
        self.stream_deadline: float | None = None
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.body: list[bytes] = []  # what an attempt must send that begins now
        self.body_bytes = 0
        self.replayable = True
        self.tried: frozenset[str] = NONE_TRIED
        self.mirrors: list[Mirrored] = []
        self._hash = None if action.hash_policies else NO_HASH
        self._timer: asyncio.TimerHandle | None = None
        self._retrying: ClusterLoad | None = None  # counts this request's retry until its outcome is known
        self.weighted = action.clusters[0] if len(action.clusters) == 1 else select_cluster(action, proxy.rng.random())
        self.cluster: Cluster | None = proxy.config.clusters.get(self.weighted.name) if self.weighted is not None else None
        if self.cluster is not None:
            exchange.record.upstream_cluster = self.cluster.name

    # -- the request -----------------------------------------------------------------------------------------------

    def delayed(self) -> None:
        """Envoy's route timeout starts when the router gets the request, after an injected delay."""
        if self.deadline is not None:
            self.deadline = self.exchange.proxy.now() + (self.action.timeout or 0)

    def forward(self, route: Route) -> None:
        exchange, action = self.exchange, self.action
        if action.max_stream_duration is not None:
            self.stream_deadline = exchange.started + action.max_stream_duration
        if self.cluster is None:
            exchange.reply(replies.CLUSTER_NOT_FOUND)
            return
        self._edit_request(route)
        for mirror in action.mirrors:
            if exchange.proxy.rng.random() < mirror.fraction:
                self.mirrors.append(Mirrored(exchange.proxy, mirror.cluster, exchange.head, action.timeout))
        if exchange.request_done:
            for mirrored in self.mirrors:
                mirrored.end()
        self._try()

    def _edit_request(self, route: Route) -> None:
        exchange, action, head = self.exchange, self.action, self.exchange.head
        new_host = (self.weighted.host_rewrite if self.weighted is not None else None) or action.host_rewrite
        if exchange.manager.route_table.has_edits:
            found = exchange.edits()
            context = exchange.edit_context([])
            for edits in found:
                headers.apply_edits(head.headers, edits.request_add, edits.request_remove, context)
        if action.prefix_rewrite is not None or action.regex_rewrite is not None:
            rewritten = rewrite_target(action, route, head.target)
            set_header(head.headers, b"x-envoy-original-path", head.target)
            exchange.record.target = head.target
            head.target = rewritten
        if new_host is not None and new_host != head.authority:
            set_header(head.headers, b"x-envoy-original-host", head.authority)
            head.authority = exchange.record.authority = new_host
            set_header(head.headers, b"host", new_host)
        if action.timeout is not None:
            if head.has & HAS_TOLD or exchange.manager.route_table.has_edits:
                set_header(head.headers, EXPECTED_TIMEOUT, action.timeout_ms)
            else:
                head.headers.append((EXPECTED_TIMEOUT, action.timeout_ms))
        elif exchange.stream.direction is Direction.INBOUND:
            remove_header(head.headers, EXPECTED_TIMEOUT)

    def data(self, data: bytes) -> None:
        """A piece of the request body."""
        self.body_bytes += len(data)
        for mirror in self.mirrors:
            mirror.data(data)
        attempt = self.attempt
        if attempt is None or attempt.connection is None:
            self.body.append(data)  # whatever its size: the next attempt must send it, and reading stops here
            if self.body_bytes > EARLY_LIMIT:
                self.exchange.downstream.pause_reading()
            return
        if self.replayable and self.action.retry is not None:
            if self.body_bytes <= REPLAY_LIMIT:
                self.body.append(data)
            else:
                self.replayable = False
                self.body.clear()
        attempt.connection.write(data)

    def end(self) -> None:
        """The request is complete."""
        for mirror in self.mirrors:
            mirror.end()
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.request_sent = True

    # -- attempts --------------------------------------------------------------------------------------------------

    def _try(self) -> None:
        exchange, cluster = self.exchange, self.cluster
        if exchange.ended or cluster is None:
            return
        if cluster.name == "BlackHoleCluster":
            exchange.reply(replies.BLACK_HOLE)
            return
        pool = self._pool(cluster)
        if pool is None:
            exchange.reply(replies.NO_HEALTHY_UPSTREAM)
            return
        proxy, record, retry = exchange.proxy, exchange.record, self.action.retry
        attempt = self.attempt = Attempt(self, pool, proxy.wall_ns if record.trace is not None else None)
        if retry is not None and retry.per_try_timeout is not None:
            attempt.deadline = proxy.now() + retry.per_try_timeout
        self.attempts += 1
        if record.trace is not None:
            attempt.record.span_id = proxy.rng.randbytes(8)
        record.attempts.append(attempt.record)
        record.upstream_host = pool.endpoint
        cut = proxy.upstreams.partitions.cut
        if cut:
            record.fault_id = cut.get(pool.target.endpoint.address, exchange.fault_id)
        proxy.sweep.add(exchange)
        if not attempt.start(exchange.head.method):
            exchange.reply(replies.OVERFLOW)

    def _pool(self, cluster: Cluster) -> Pool | None:
        exchange = self.exchange
        upstreams = exchange.proxy.upstreams
        if cluster.kind == "ORIGINAL_DST":
            ip, port = exchange.stream.original
            return upstreams.http_pool(
                cluster, Endpoint(ip, cluster.original_dst_port or port), exchange.head.authority, self._source(cluster)
            )
        if self._hash is None:
            source = exchange.record.downstream_remote.rpartition(":")[0]
            self._hash = request_hash(self.action.hash_policies, exchange.head, source, exchange.proxy.rng)
        retry = self.action.retry
        tries = retry.host_selection_attempts if retry is not None and retry.previous_hosts else 0
        endpoint = upstreams.choose(cluster, self._hash.value, self.tried if tries else NONE_TRIED, tries)
        if endpoint is None:
            return None
        return upstreams.http_pool(cluster, endpoint, exchange.head.authority, self._source(cluster))

    def _source(self, cluster: Cluster) -> tuple[str, str] | None:
        """What the PROXY protocol tells, where there is one."""
        stream = self.exchange.stream
        return (stream.remote, stream.local) if cluster.proxy_protocol else None

    @property
    def set_cookie(self) -> bytes | None:
        """The cookie made for a hash policy of this request."""
        return self._hash.set_cookie if self._hash is not None else None

    def connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        exchange = self.exchange
        record, peer = exchange.record, connection.peer
        record.upstream_local = connection.local_address
        if peer.spiffe_id:
            record.mtls = True
            if exchange.stream.direction is Direction.OUTBOUND:
                record.peer_principal = peer.spiffe_id
        head = self._request_head(attempt)
        if self.body:
            connection.write(head + b"".join(self.body))
            if self.action.retry is None:
                self.body.clear()
        else:
            connection.write(head)
        if exchange.request_done:
            connection.request_sent = True
        else:
            exchange.downstream.resume_reading()

    def _request_head(self, attempt: Attempt) -> bytes:
        exchange, head = self.exchange, self.exchange.head
        pairs, trace = head.headers, exchange.record.trace
        if trace is not None and exchange.stream.direction is Direction.OUTBOUND:
            pairs = tracing.with_parent(pairs, trace, attempt.record.span_id)
        lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (head.method, head.target, head.authority)]
        lines += [b"%b: %b" % (name, value) for name, value in pairs if name != b"host"]
        if attempt.pool.mesh:
            lines += exchange.proxy.peer_lines
        if exchange.host is not None and exchange.host.include_attempt_count:
            if head.has & HAS_TOLD:
                lines = [line for line in lines if not line.startswith(b"x-envoy-attempt-count:")]
            lines.append(b"x-envoy-attempt-count: %d" % self.attempts)
        if needs_length(head.method, pairs):
            lines.append(b"content-length: 0")
        if exchange.upgrade:
            lines.append(b"connection: upgrade\r\nupgrade: " + exchange.upgrade)
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    def response_head(self, attempt: Attempt, head: ResponseHead, body: Body) -> None:
        exchange = self.exchange
        if attempt is not self.attempt or exchange.ended:
            return
        if head.status < 200:
            if head.status == 101:
                self._tunnel(attempt, head)
            elif head.status != 100 or exchange.manager.proxy_100_continue:  # else a client that waits for that has had it from us
                self.replayable = self.replayable and head.status != 100  # it is about to send the body to this app
                exchange.downstream.send_informational(head)
            return
        if self.action.retry is not None and self._may_retry(Outcome(Failure.NONE, head.status, head.headers)):
            attempt.abandon()
            self._retry()
            return
        if self.attempts > 1 and self._exhausted(Outcome(Failure.NONE, head.status, head.headers)):
            exchange.record.flags |= Flag.URX
        exchange.respond(head, body)

    def _tunnel(self, attempt: Attempt, head: ResponseHead) -> None:
        if not self.exchange.upgrade:  # nobody asked: what this client sends next is no business of this app's
            attempt.abandon()
            self.exchange.reply(replies.reset("protocol_error", retried=self.attempts > 1, connect=False))
        elif attempt.connection is not None:
            self.deadline = None
            self.exchange.tunnel(attempt.connection, head)

    def _exhausted(self, outcome: Outcome) -> bool:
        """Whether this would be retried if it were not for the number of retries."""
        retry = self.action.retry
        return retry is not None and self.replayable and self.attempts > retry.num_retries and should_retry(retry, outcome)

    def response_data(self, attempt: Attempt, data: bytes) -> None:
        exchange = self.exchange
        if attempt is self.attempt and exchange.response_started and not exchange.ended:
            exchange.active = True
            body = exchange.response_body
            if body is not None:
                exchange.record.bytes_sent = body.content
            exchange.downstream.send_data(data)

    def response_end(self, attempt: Attempt) -> None:
        exchange = self.exchange
        if attempt is self.attempt and exchange.response_started and not exchange.ended:
            exchange.downstream.send_end()
            exchange.finish()

    def failed(self, attempt: Attempt, failure: Failure, details: str) -> None:
        exchange = self.exchange
        if attempt is not self.attempt or exchange.ended:
            return
        if exchange.response_started:
            exchange.cut_short()
            return
        if "|" in details:
            exchange.record.transport_failure = details.partition("|")[2]
        if self._may_retry(Outcome(failure)):
            self._retry()
            return
        if self._exhausted(Outcome(failure)):
            exchange.record.flags |= Flag.URX
        exchange.reply(replies.reset(details, retried=self.attempts > 1, connect=failure is Failure.CONNECT))

    def _may_retry(self, outcome: Outcome) -> bool:
        self._end_retry()
        retry = self.action.retry
        if retry is None or self.cluster is None or self.attempts > retry.num_retries or not self.replayable:
            return False
        if not should_retry(retry, outcome):
            return False
        proxy = self.exchange.proxy
        admitted = proxy.upstreams.load(self.cluster.name).admits_retry(self.cluster.breakers, proxy.now())
        if not admitted:
            self.exchange.record.flags |= Flag.UO
        return admitted

    def _retry(self) -> None:
        retry = self.action.retry
        if retry is None or self.cluster is None:
            return
        if self.attempt is not None:
            self.tried |= {self.attempt.endpoint}
        load = self._retrying = self.exchange.proxy.upstreams.load(self.cluster.name)
        load.retries += 1
        wait = backoff(retry, self.attempts, self.exchange.proxy.rng)
        self._timer = asyncio.get_running_loop().call_later(wait, self._again)

    def _again(self) -> None:
        self._timer = None
        self._try()

    def _end_retry(self) -> None:
        if self._retrying is not None:
            self._retrying.retries -= 1
            self._retrying = None

    # -- time, endings ---------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> LocalReply | None:
        """The reply of the limit that is over; a per_try_timeout that may be retried is dealt with here."""
        if self.deadline is not None and now >= self.deadline:
            return self.timed_out(replies.ROUTE_TIMEOUT)
        if self.stream_deadline is not None and now >= self.stream_deadline:
            return self.timed_out(replies.MAX_DURATION)
        attempt = self.attempt
        if attempt is None or not attempt.overdue(now):
            return None
        self.timed_out(replies.PER_TRY_TIMEOUT)
        attempt.record.error = "per_try_timeout"
        if self._may_retry(Outcome(Failure.TIMEOUT)):
            self._retry()
            return None
        if self._exhausted(Outcome(Failure.TIMEOUT)):
            self.exchange.record.flags |= Flag.URX
        return replies.PER_TRY_TIMEOUT

    def timed_out(self, reply: LocalReply) -> LocalReply:
        """An endpoint that has not answered in time is told to the outlier detector."""
        attempt = self.attempt
        if attempt is not None:
            if not attempt.over and not attempt.responded:
                self.exchange.proxy.upstreams.observe(attempt.pool.target.cluster.name, attempt.endpoint, None)
            attempt.abandon()
        return reply

    def stop(self) -> None:
        """The exchange is over, however it ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._end_retry()
        for mirror in self.mirrors:
            mirror.cut_off()
        self.attempt = None

    def abandon(self) -> None:
        if self.attempt is not None:
            self.attempt.abandon()

    def pause_request(self) -> None:
        self.exchange.downstream.pause_reading()

    def resume_request(self) -> None:
        self.exchange.downstream.resume_reading()
