"""One request and its response, whichever HTTP version carried them: route, filters, attempts, record.

Order of the layers, as Istio configures Envoy: identity headers, route, fault (delays and aborts before anything is sent), CORS, router
(rewrites, cluster, retries). A fault at the caller therefore never reaches the retry layer, which is Istio's meaning of `fault:`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from devmesh.sidecar import forwarding, replies
from devmesh.sidecar.attempt import Attempt
from devmesh.sidecar.balancing import request_hash
from devmesh.sidecar.config import (
    NO_EDITS,
    Cluster,
    DirectResponseAction,
    Endpoint,
    HeaderEdits,
    HttpManager,
    RedirectAction,
    Route,
    RouteAction,
    VirtualHost,
    WeightedCluster,
)
from devmesh.sidecar.filters import cors, fault, headers
from devmesh.sidecar.http1.framing import Body, CloseBody
from devmesh.sidecar.message import Headers, RequestHead, ResponseHead, get_header, remove_header, set_header
from devmesh.sidecar.mirror import Mirrored
from devmesh.sidecar.paths import normalized
from devmesh.sidecar.record import Direction, Flag, Record
from devmesh.sidecar.replies import LocalReply
from devmesh.sidecar.resilience import ClusterLoad, Failure, Outcome, backoff, should_retry
from devmesh.sidecar.routing import (
    TLS_REDIRECT,
    needs_tls,
    redirect_location,
    rewrite_target,
    select_cluster,
    select_route,
    select_virtual_host,
)
from devmesh.sidecar.telemetry import tracing
from devmesh.sidecar.tls import Peer
from devmesh.sidecar.upstream import UpstreamConnection, http_target

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy

REPLAY_LIMIT = 1024 * 1024  # bytes kept for retries and mirrors: Envoy's per_connection_buffer_limit_bytes
INTERNAL = frozenset(
    {b"x-envoy-internal", b"x-envoy-max-retries", b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-retry-on", b"x-envoy-attempt-count"}
)


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of the downstream connection when an exchange begins."""

    direction: Direction
    original: tuple[str, int]
    remote: str
    local: str
    peer: Peer | None = None
    server_name: str = ""


class Downstream(Protocol):
    """The connection below, as the exchange needs it."""

    def send_head(self, status: int, reason: bytes, headers: Headers, *, chunked_from_close: bool) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def send_end(self) -> None: ...
    def send_informational(self, head: ResponseHead) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...
    def tunnel(self, connection: UpstreamConnection, head: ResponseHead) -> None: ...


class Exchange:
    __slots__ = (
        "_backing_off",
        "_handle",
        "action",
        "active",
        "attempt",
        "attempts",
        "body",
        "body_bytes",
        "cluster",
        "cors_origin",
        "deadline",
        "downstream",
        "ended",
        "fault_decision",
        "hash_done",
        "hash_value",
        "head",
        "host",
        "idle_deadline",
        "manager",
        "mirrors",
        "proxy",
        "record",
        "replayable",
        "request_done",
        "response_body",
        "response_started",
        "route",
        "set_cookie",
        "started",
        "stream",
        "stream_deadline",
        "tried",
        "upgrade",
        "weighted",
    )  # fmt: skip

    def __init__(self, proxy: Proxy, downstream: Downstream, manager: HttpManager, stream: Stream, head: RequestHead) -> None:
        self.proxy, self.downstream, self.manager, self.stream, self.head = proxy, downstream, manager, stream, head
        self.started = proxy.now()
        self.record = Record(stream.direction, time.time_ns(), head.method, head.target, head.authority)
        self.record.downstream_remote, self.record.downstream_local = stream.remote, stream.local
        self.record.requested_server_name = stream.server_name
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.replayable = True
        self.request_done = self.response_started = self.ended = False
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.tried: frozenset[str] = frozenset()
        self.host: VirtualHost | None = None
        self.route: Route | None = None
        self.action: RouteAction | None = None
        self.weighted: WeightedCluster | None = None
        self.cluster: Cluster | None = None
        self.deadline: float | None = None
        self.stream_deadline: float | None = None
        self.idle_deadline: float | None = None
        self.fault_decision = fault.NO_FAULT
        self.mirrors: list[Mirrored] = []
        self.upgrade = b""
        self.cors_origin: bytes | None = None
        self.set_cookie: bytes | None = None
        self.hash_value: int | None = None
        self.hash_done = False
        self.response_body: Body | None = None
        self.active = True  # something passed since the last sweep
        self._handle: asyncio.TimerHandle | None = None
        self._backing_off: ClusterLoad | None = None  # counts this exchange's retry until it starts

    # -- the request -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.proxy.exchanges.add(self)
        self._identify()
        if not self._normalize():
            self.reply(LocalReply(400, b"", Flag.NONE, "path_normalization_failed"))
            return
        self.host = select_virtual_host(self.manager.route_table, self.head.authority)
        # As in Envoy, only a connect_matcher, which Istio never writes, takes a CONNECT.
        if self.host is None or self.head.method == b"CONNECT":
            self.reply(replies.ROUTE_NOT_FOUND)
            return
        if needs_tls(self.host, self.head):
            self._redirect(TLS_REDIRECT, None)
            return
        self.route = select_route(self.host, self.head, self.proxy.rng.random())
        if self.route is None:
            self.reply(replies.ROUTE_NOT_FOUND)
            return
        self.record.route_name, self.record.route_origin = self.route.name, self.route.origin
        if isinstance(self.route.action, RouteAction):
            self._choose_cluster(self.route.action)
        if self.upgrade and not self._may_upgrade():
            self.reply(replies.UPGRADE_REFUSED)
            return
        self._inject_fault()

    def _normalize(self) -> bool:
        """Before any rule looks at the path."""
        manager = self.manager
        if not (manager.normalize_path or manager.merge_slashes):
            return True
        target = normalized(self.head.target, merge_slashes=manager.merge_slashes)
        if target is None:
            return False
        self.head.target = self.record.target = target
        return True

    def _choose_cluster(self, action: RouteAction) -> None:
        """Before the filters, as Envoy: a request that a fault aborts was meant for a cluster too."""
        if action.timeout is not None:
            self.deadline = self.started + action.timeout
        self.weighted = select_cluster(action, self.proxy.rng.random())
        self.cluster = self.proxy.config.clusters.get(self.weighted.name) if self.weighted is not None else None
        if self.cluster is not None:
            self.record.upstream_cluster = self.cluster.name

    def _identify(self) -> None:
        """Headers that say who and where: request id, forwarding, client certificate, trace."""
        given = self.head.headers
        self.upgrade = forwarding.upgrade(given)
        self.record.request_headers = list(given)
        forwarding.drop_hop_by_hop(given)
        if self.manager.use_remote_address:
            forwarding.append_forwarded_for(given, self.stream.remote)
            set_header(given, b"x-forwarded-proto", self.head.scheme)
            given[:] = [pair for pair in given if pair[0] not in INTERNAL]
        elif get_header(given, b"x-forwarded-proto") is None:
            given.append((b"x-forwarded-proto", b"https" if self.stream.peer is not None else b"http"))
        request_id = get_header(given, b"x-request-id")
        if request_id is None or self.manager.use_remote_address:
            request_id = str(uuid.UUID(int=self.proxy.rng.getrandbits(128), version=4)).encode()
            set_header(given, b"x-request-id", request_id)
        self.record.request_id = request_id
        forwarding.client_certificate(given, self.manager, self.stream.peer, self.proxy.spiffe_id)
        peer = get_header(given, b"x-envoy-peer-metadata")
        if self.stream.direction is Direction.INBOUND and peer is not None:
            self.record.peer_metadata = peer
            given[:] = [pair for pair in given if not pair[0].startswith(b"x-envoy-peer-metadata")]
        if self.stream.peer is not None:
            self.record.mtls, self.record.peer_principal = True, self.stream.peer.spiffe_id
        if self.manager.tracing:
            self.record.trace = tracing.start(given, self.manager.sampling, self.proxy.rng)
            tracing.inject(given, self.record.trace)

    def _may_upgrade(self) -> bool:
        allowed = self.upgrade.decode("latin-1") in self.manager.upgrades
        if isinstance(self.route and self.route.action, RouteAction):
            override = self.route.action.upgrade_websocket if self.upgrade == b"websocket" else None  # type: ignore[union-attr] # narrowed above
            allowed = allowed if override is None else override
        return allowed

    def _inject_fault(self) -> None:
        route = self.route
        policy = (route.fault if route is not None else None) or self.manager.fault
        decision = fault.decide(policy, self.head, self.proxy.rng)
        if not decision.fires:
            self._route_request()
            return
        self.fault_decision = decision
        self.record.fault_id = decision.fault_id
        if decision.delay is not None:
            self.record.flags |= Flag.DI
            self._handle = asyncio.get_running_loop().call_later(decision.delay, self._after_delay)
        else:
            self._abort()

    def _after_delay(self) -> None:
        self._handle = None
        if self.ended:
            return
        if self.fault_decision.aborts:
            self._abort()
        else:
            if self.deadline is not None and isinstance(self.route and self.route.action, RouteAction):
                # Envoy's route timeout starts when the router gets the request, after the delay.
                self.deadline = self.proxy.now() + (self.route.action.timeout or 0)  # type: ignore[union-attr] # narrowed above
            self._route_request()

    def _abort(self) -> None:
        decision = self.fault_decision
        status = decision.abort_status if decision.abort_status is not None else 200
        self.reply(LocalReply(status, b"fault filter abort", Flag.FI, "fault_filter_abort", grpc_status=decision.abort_grpc_status))

    def _route_request(self) -> None:
        route = self.route
        if route is None or self.host is None:
            return
        self.cors_origin = cors.allowed_origin(route.cors, self.head)
        answer = cors.preflight(route.cors, self.head)
        if answer is not None:
            self.reply(LocalReply(200, b"", Flag.NONE, "cors_response", tuple(answer)))
            return
        action = route.action
        if isinstance(action, RedirectAction):
            self._redirect(action, route)
        elif isinstance(action, DirectResponseAction):
            self.reply(LocalReply(action.status, action.body, Flag.NONE, "direct_response"))
        else:
            self._forward(route, action)

    def _redirect(self, action: RedirectAction, route: Route | None) -> None:
        location = redirect_location(action, route, self.head)
        self.reply(LocalReply(action.status, b"", Flag.NONE, "direct_response", ((b"location", location),)))

    def _forward(self, route: Route, action: RouteAction) -> None:
        self.action = action
        if action.max_stream_duration is not None:
            self.stream_deadline = self.started + action.max_stream_duration
        self._edit_request(route, action)
        if self.cluster is None:
            self.reply(replies.CLUSTER_NOT_FOUND)
            return
        for mirror in action.mirrors:
            if self.proxy.rng.random() < mirror.fraction:
                self.mirrors.append(Mirrored(self.proxy, mirror.cluster, self.head))
        self._attempt()

    def _edit_request(self, route: Route, action: RouteAction) -> None:
        head = self.head
        found = self._edits()
        if found:
            context = self._edit_context([])
            for edits in found:
                headers.apply_edits(head.headers, edits.request_add, edits.request_remove, context)
        rewritten = rewrite_target(action, route, head.target)
        if rewritten != head.target:
            set_header(head.headers, b"x-envoy-original-path", head.target)
            head.target = rewritten
        host = (self.weighted.host_rewrite if self.weighted is not None else None) or action.host_rewrite
        new_host = get_header(head.headers, b":authority") or host
        remove_header(head.headers, b":authority")
        if new_host is not None and new_host != head.authority:
            set_header(head.headers, b"x-envoy-original-host", head.authority)
            head.authority = new_host
            set_header(head.headers, b"host", new_host)
        if action.timeout is not None:
            set_header(head.headers, b"x-envoy-expected-rq-timeout-ms", b"%d" % int(action.timeout * 1000))
        elif self.stream.direction is Direction.INBOUND:
            remove_header(head.headers, b"x-envoy-expected-rq-timeout-ms")

    def _edit_context(self, response: Headers) -> headers.EditContext:
        head, record = self.head, self.record
        return headers.EditContext(
            head.headers,
            response,
            self.stream.remote,
            self.stream.local,
            upstream_host=record.upstream_host,
            method=head.method,
            authority=head.authority,
            target=head.target,
            status=record.status,
            route_name=record.route_name,
        )

    def _edit_response(self, pairs: Headers) -> None:
        found = self._edits()
        if found:
            context = self._edit_context(pairs)
            for edits in found:
                headers.apply_edits(pairs, edits.response_add, edits.response_remove, context)

    def _edits(self) -> list[HeaderEdits]:
        """Most specific first, as Envoy applies them: weighted cluster, route, virtual host, table."""
        parts = (self.weighted, self.route, self.host, self.manager.route_table)
        return [part.edits for part in parts if part is not None and part.edits is not NO_EDITS]

    def data(self, data: bytes) -> None:
        """A piece of the request body."""
        if self.ended:
            return  # the answer overtook it
        self.active = True
        self.record.bytes_received += len(data)
        self.body_bytes += len(data)
        for mirror in self.mirrors:
            mirror.data(data)
        attempt = self.attempt
        if attempt is None or attempt.connection is None:
            self.body.append(data)  # whatever its size: the next attempt must send it, and reading stops here
            if self.body_bytes > 64 * 1024:
                self.downstream.pause_reading()
            return
        if self.replayable and self._keeps_body():
            if self.body_bytes <= REPLAY_LIMIT:
                self.body.append(data)
            else:
                self.replayable = False
                self.body.clear()
        attempt.connection.write(data)

    def _keeps_body(self) -> bool:
        return self.action is None or self.action.retry is not None or bool(self.action.mirrors)

    def end(self) -> None:
        """The request is complete."""
        self.request_done = True
        for mirror in self.mirrors:
            mirror.end()
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.request_sent = True

    # -- attempts --------------------------------------------------------------------------------------------------

    def _attempt(self) -> None:
        cluster = self.cluster
        if self.ended or cluster is None or self.action is None:
            return
        if cluster.name == "BlackHoleCluster":
            self.reply(replies.BLACK_HOLE)
            return
        endpoint = self._endpoint(cluster)
        if endpoint is None:
            self.reply(replies.NO_HEALTHY_UPSTREAM)
            return
        retry = self.action.retry
        now = self.proxy.now()
        deadline = now + retry.per_try_timeout if retry is not None and retry.per_try_timeout is not None else None
        attempt = Attempt(self, self.proxy.upstreams, http_target(cluster, endpoint), deadline)
        self.attempts += 1
        self.attempt = attempt
        attempt.record.span_id = self.proxy.rng.randbytes(8)
        self.record.attempts.append(attempt.record)
        self.record.upstream_host = attempt.endpoint
        self.proxy.sweep.add(self)
        if not attempt.start(self.head.method):
            self.reply(replies.OVERFLOW)

    def _endpoint(self, cluster: Cluster) -> Endpoint | None:
        if cluster.kind == "ORIGINAL_DST":
            ip, port = self.stream.original
            return Endpoint(ip, cluster.original_dst_port or port)
        action = self.action
        if action is not None and action.hash_policies and not self.hash_done:
            result = request_hash(action.hash_policies, self.head, self.stream.remote.rpartition(":")[0], self.proxy.rng)
            self.hash_value, self.set_cookie, self.hash_done = result.value, result.set_cookie, True
        retry = action.retry if action is not None else None
        tries = retry.host_selection_attempts if retry is not None and retry.previous_hosts else 0
        return self.proxy.upstreams.choose(cluster, self.hash_value, self.tried if tries else frozenset(), tries)

    def attempt_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        self.record.upstream_local = connection.local_address
        if connection.peer.spiffe_id:
            self.record.mtls = True
            if self.stream.direction is Direction.OUTBOUND:
                self.record.peer_principal = connection.peer.spiffe_id
        connection.write(self._request_bytes(attempt) + b"".join(self.body))
        if not self._keeps_body():
            self.body.clear()
        if self.request_done:
            connection.request_sent = True
        else:
            self.downstream.resume_reading()

    def _request_bytes(self, attempt: Attempt) -> bytes:
        head = self.head
        pairs = head.headers
        if attempt.target.tls is not None and self.proxy.peer_metadata and any(n.startswith(b"istio") for n in attempt.target.alpn):
            pairs = [*pairs, *self.proxy.peer_metadata]
        if self.record.trace is not None and self.stream.direction is Direction.OUTBOUND:
            pairs = tracing.with_parent(pairs, self.record.trace, attempt.record.span_id)
        if self.host is not None and self.host.include_attempt_count:
            pairs = [*pairs, (b"x-envoy-attempt-count", b"%d" % self.attempts)]
        if self.upgrade:
            pairs = [*pairs, (b"connection", b"upgrade"), (b"upgrade", self.upgrade)]
        lines = [head.method + b" " + head.target + b" HTTP/1.1\r\nhost: " + head.authority]
        lines += [name + b": " + value for name, value in pairs if name != b"host"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def attempt_head(self, attempt: Attempt, head: ResponseHead, body: Body) -> None:
        if attempt is not self.attempt or self.ended:
            return
        if head.status == 101:
            self._tunnel(attempt, head)
            return
        if head.status < 200:
            self.downstream.send_informational(head)
            return
        if self._may_retry(Outcome(Failure.NONE, head.status, head.headers)):
            attempt.abandon()
            self._retry()
            return
        self._respond(head, body)

    def _tunnel(self, attempt: Attempt, head: ResponseHead) -> None:
        connection = attempt.connection
        if connection is None:
            return
        self.record.status, self.record.details = 101, "via_upstream"
        self.response_started = True
        self.deadline = None
        self.downstream.tunnel(connection, head)

    def _respond(self, head: ResponseHead, body: Body) -> None:
        self.response_started = True
        self.record.status = head.status
        self.record.details = "via_upstream"
        self.record.upstream_service_time = self.proxy.now() - self.started
        if self.attempts > 1 and self._exhausted(head):
            self.record.flags |= Flag.URX
        pairs = head.headers
        forwarding.drop_response_hops(pairs)
        peer = get_header(pairs, b"x-envoy-peer-metadata")
        if peer is not None:
            if self.stream.direction is Direction.OUTBOUND:
                self.record.peer_metadata = peer
            pairs[:] = [pair for pair in pairs if not pair[0].startswith(b"x-envoy-peer-metadata")]
        self._edit_response(pairs)
        cors.on_response(self.route.cors if self.route is not None else None, self.cors_origin, pairs)
        if self.set_cookie is not None:
            pairs.append((b"set-cookie", self.set_cookie))
        set_header(pairs, b"x-envoy-upstream-service-time", b"%d" % int(self.record.upstream_service_time * 1000))
        if get_header(pairs, b"date") is None:
            pairs.append((b"date", replies.http_date()))
        set_header(pairs, b"server", self.manager.server_name)
        if self.stream.direction is Direction.INBOUND and self.record.peer_metadata:
            pairs += self.proxy.peer_metadata
        self.response_body = body
        self.downstream.send_head(head.status, head.reason, pairs, chunked_from_close=isinstance(body, CloseBody))

    def _exhausted(self, head: ResponseHead) -> bool:
        retry = self.action.retry if self.action is not None else None
        return (
            retry is not None
            and self.attempts > retry.num_retries
            and should_retry(retry, Outcome(Failure.NONE, head.status, head.headers))
        )

    def attempt_data(self, attempt: Attempt, data: bytes) -> None:
        if attempt is self.attempt and self.response_started and not self.ended:
            self.active = True
            self.record.bytes_sent += len(data)
            self.downstream.send_data(data)

    def attempt_end(self, attempt: Attempt) -> None:
        if attempt is self.attempt and self.response_started and not self.ended:
            self.downstream.send_end()
            self.finish()

    def attempt_failed(self, attempt: Attempt, failure: Failure, details: str) -> None:
        if attempt is not self.attempt or self.ended:
            return
        if self.record.status == 101:
            self.downstream.close()
            self.finish()
            return
        if self.response_started:
            self.record.flags |= Flag.UPE if self.response_body is not None and not isinstance(self.response_body, CloseBody) else Flag.UC
            self.record.details = "upstream_reset_after_response_started{protocol_error}"
            self.downstream.reset()
            self.finish()
            return
        if "|" in details:
            self.record.transport_failure = details.partition("|")[2]
        if self._may_retry(Outcome(failure)):
            self._retry()
            return
        reply = replies.reset(details, retried=self.attempts > 1, connect=failure is Failure.CONNECT)
        if self.attempts > 1:
            self.record.flags |= Flag.URX
        self.reply(reply)

    def _may_retry(self, outcome: Outcome) -> bool:
        retry = self.action.retry if self.action is not None else None
        if retry is None or self.cluster is None or self.attempts > retry.num_retries or not self.replayable:
            return False
        if not should_retry(retry, outcome):
            return False
        return self.proxy.upstreams.load(self.cluster.name).admits_retry(self.cluster.breakers)

    def _retry(self) -> None:
        if self.attempt is not None:
            self.tried |= {self.attempt.endpoint}
        if self.action is None or self.action.retry is None or self.cluster is None:
            return
        load = self.proxy.upstreams.load(self.cluster.name)
        load.retries += 1
        self._backing_off = load
        wait = backoff(self.action.retry, self.attempts, self.proxy.rng)

        def again() -> None:
            self._handle = None
            self._end_backoff()
            self._attempt()

        self._handle = asyncio.get_running_loop().call_later(wait, again)

    def _end_backoff(self) -> None:
        if self._backing_off is not None:
            self._backing_off.retries -= 1
            self._backing_off = None

    # -- time, endings ---------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """The sweep's question: is anything overdue?"""
        if self.ended:
            self.proxy.sweep.discard(self)
        elif self.deadline is not None and now >= self.deadline:
            self._timed_out(replies.ROUTE_TIMEOUT)
        elif self.stream_deadline is not None and now >= self.stream_deadline:
            self._timed_out(replies.MAX_DURATION)
        elif self.attempt is not None and self.attempt.overdue(now):
            self._per_try_timed_out(self.attempt)
        elif self.active:
            self.active = False
            limit = self._idle_limit()
            self.idle_deadline = now + limit if limit is not None else None
        elif self.idle_deadline is not None and now >= self.idle_deadline:
            self._timed_out(replies.STREAM_IDLE)

    def _idle_limit(self) -> float | None:
        """stream_idle_timeout, which a route may replace. A tunnel has none: its bytes pass without the exchange."""
        if self.record.status == 101:
            return None
        own = self.action.idle_timeout if self.action is not None else None
        return own if own is not None else self.manager.stream_idle_timeout

    def _timed_out(self, reply: LocalReply) -> None:
        self._observe_timeout()
        if self.attempt is not None:
            self.attempt.abandon()
        if self.response_started:
            self.record.flags |= reply.flags
            self.record.details = reply.details
            self.downstream.reset()
            self.finish()
        else:
            self.reply(reply)

    def _observe_timeout(self) -> None:
        attempt = self.attempt
        if attempt is not None and not attempt.over and not attempt.responded:
            self.proxy.upstreams.observe(attempt.target.cluster.name, attempt.endpoint, None)

    def _per_try_timed_out(self, attempt: Attempt) -> None:
        self._observe_timeout()
        attempt.record.error = "per_try_timeout"
        attempt.abandon()
        if self._may_retry(Outcome(Failure.TIMEOUT)):
            self._retry()
            return
        if self.attempts > 1:
            self.record.flags |= Flag.URX
        self.reply(replies.PER_TRY_TIMEOUT)

    def reply(self, reply: LocalReply) -> None:
        """Answer by ourselves; the request goes nowhere."""
        grpc = (get_header(self.head.headers, b"content-type") or b"").startswith(b"application/grpc")
        status, pairs, body = replies.render(reply, grpc=grpc, date=replies.http_date(), server=self.manager.server_name)
        self.record.flags |= reply.flags
        self.record.details = reply.details
        self.record.status = status
        if self.route is not None:
            self._edit_response(pairs)
            cors.on_response(self.route.cors, self.cors_origin, pairs)
        self.response_started = True
        if self.attempt is not None:
            self.attempt.abandon()
        self.downstream.send_head(status, replies.reason_phrase(status), pairs, chunked_from_close=False)
        if body and self.head.method != b"HEAD":
            self.record.bytes_sent += len(body)
            self.downstream.send_data(body)
        self.downstream.send_end()
        self.finish()

    def client_gone(self) -> None:
        if self.ended:
            return
        self.record.flags |= Flag.DC
        self.record.details = self.record.details if self.response_started else "downstream_remote_disconnect"
        if not self.response_started:
            self.record.status = 0
        if self.attempt is not None:
            self.attempt.abandon()
        self.finish()

    def finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._handle is not None:
            self._handle.cancel()
        self._end_backoff()
        for mirror in self.mirrors:
            mirror.cut_off()
        self.record.duration = self.proxy.now() - self.started
        self.proxy.sweep.discard(self)
        self.proxy.exchanges.discard(self)
        self.proxy.record(self.record, self.manager)

    def pause_request(self) -> None:
        self.downstream.pause_reading()

    def resume_request(self) -> None:
        self.downstream.resume_reading()

    def pause_response(self) -> None:
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.pause_reading()

    def resume_response(self) -> None:
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.resume_reading()
