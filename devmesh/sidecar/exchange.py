"""One request and its response, whichever HTTP version carried them: route, filters, router, record.

Order of the layers, as Istio configures Envoy: identity headers, route, fault (delays and aborts before anything is sent), CORS, router
(rewrites, cluster, retries). A fault at the caller therefore never reaches the retry layer, which is Istio's meaning of `fault:`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmesh.sidecar import forwarding, replies
from devmesh.sidecar.config import NO_EDITS, DirectResponseAction, HeaderEdits, HttpManager, RedirectAction, Route, RouteAction, VirtualHost
from devmesh.sidecar.filters import cors, fault, headers
from devmesh.sidecar.http1.framing import Body, CloseBody
from devmesh.sidecar.message import (
    BODILESS,
    HAS_DATE,
    HAS_OURS,
    RESPONSE_KINDS,
    Headers,
    RequestHead,
    ResponseHead,
    decimal,
    get_header,
    kinds,
    remove_header,
    set_header,
)
from devmesh.sidecar.paths import normalized
from devmesh.sidecar.record import Direction, Flag, Record
from devmesh.sidecar.replies import LocalReply
from devmesh.sidecar.router import Router
from devmesh.sidecar.routing import NOWHERE_ELSE, TLS_REDIRECT, needs_tls, redirect_location, select_route, select_virtual_host
from devmesh.sidecar.seam import Handler
from devmesh.sidecar.telemetry import tracing
from devmesh.sidecar.tls import Peer
from devmesh.sidecar.upstream_connection import UpstreamConnection

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of the downstream connection when an exchange begins. `web` says that our certificate there is not the mesh's."""

    direction: Direction
    original: tuple[str, int]
    remote: str
    local: str
    peer: Peer | None = None
    server_name: str = ""
    web: bool = False


class Downstream(Handler):
    """The connection below, as the exchange needs it. A head goes out with the data, the end or the flush that follows it."""

    def send_head(self, status: int, headers: Headers, *, chunked_from_close: bool) -> None:
        raise NotImplementedError

    def send_data(self, data: bytes) -> None:
        raise NotImplementedError

    def send_end(self) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        raise NotImplementedError

    def send_informational(self, head: ResponseHead) -> None:
        raise NotImplementedError

    def last(self) -> None:
        """No request after this one: the connection closes behind the answer."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def tunnel(self, connection: UpstreamConnection, head: ResponseHead) -> None:
        raise NotImplementedError


def _frame(status: int, pairs: Headers) -> None:
    """An answer to HEAD whose length nobody says: Envoy announces chunks, of which none come."""
    if status not in BODILESS and get_header(pairs, b"content-length") is None and get_header(pairs, b"transfer-encoding") is None:
        pairs.append((b"transfer-encoding", b"chunked"))


class Exchange:
    """`complete`: the request has no body, or all of it came with the head."""

    __slots__ = (
        "_delay",
        "_fault",
        "active",
        "cors_origin",
        "downstream",
        "ended",
        "head",
        "host",
        "idle_deadline",
        "manager",
        "proxy",
        "record",
        "request_done",
        "response_body",
        "response_started",
        "route",
        "router",
        "started",
        "stream",
        "upgrade",
    )  # fmt: skip

    def __init__(
        self, proxy: Proxy, downstream: Downstream, manager: HttpManager, stream: Stream, head: RequestHead, *, complete: bool = False
    ) -> None:
        self.proxy, self.downstream, self.manager, self.stream, self.head = proxy, downstream, manager, stream, head
        self.started = proxy.now()
        target = head.target if head.method != b"CONNECT" else b""  # it names an authority, no path
        record = self.record = Record(stream.direction, proxy.wall_ns(), head.method, target, head.authority)
        record.downstream_remote, record.downstream_local = stream.remote, stream.local
        record.requested_server_name = stream.server_name
        self.request_done = complete
        self.response_started = self.ended = False
        self.router: Router | None = None
        self.host: VirtualHost | None = None
        self.route: Route | None = None
        self.idle_deadline: float | None = None
        self.upgrade = b""
        self.cors_origin: bytes | None = None
        self.response_body: Body | None = None
        self.active = True  # something passed since the last sweep
        self._fault = fault.NO_FAULT
        self._delay: asyncio.TimerHandle | None = None

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
        if self.head.target[:1] != b"/":  # OPTIONS *
            self.reply(replies.NO_PATH)
            return
        if needs_tls(self.host, self.head):
            self._redirect(TLS_REDIRECT, None)
            return
        route = self.route = select_route(self.host, self.head, self.proxy.rng.random())
        if route is None:
            self.reply(replies.ROUTE_NOT_FOUND)
            return
        self.record.route_name, self.record.route_origin, self.record.route_source = route.name, route.origin, route.source
        if isinstance(route.action, RouteAction):
            self.router = Router(self, route.action)
        if self.upgrade and not self._may_upgrade(route):
            self.downstream.last()  # what follows may be the other protocol already
            self.reply(replies.UPGRADE_REFUSED)
            return
        policy = route.fault or self.manager.fault
        if policy is None:
            self._route_request()
        else:
            self._inject_fault(fault.decide(policy, self.head, self.proxy.rng))

    def _identify(self) -> None:
        """Headers that say who and where, before any rule looks at them."""
        record, stream, proxy = self.record, self.stream, self.proxy
        self.upgrade = forwarding.prepare(
            self.head, record, self.manager, stream.remote, proxy.request_ids, client=stream.peer, own="" if stream.web else proxy.spiffe_id
        )
        if self.head.expects:
            self.downstream.send_informational(ResponseHead(100))
        if stream.peer is not None:
            record.mtls, record.peer_principal = True, stream.peer.spiffe_id
        if self.manager.tracing:
            record.trace = tracing.start(self.head.headers, self.manager.sampling, proxy.rng)
            tracing.inject(self.head.headers, record.trace)

    def _normalize(self) -> bool:
        """Before any rule looks at the path."""
        manager = self.manager
        if self.head.target.partition(b"#")[1]:  # `in` raises and drops a TypeError first, `find` makes a tuple of its arguments
            return False
        if not (manager.normalize_path or manager.merge_slashes):
            return True
        target = normalized(self.head.target, merge_slashes=manager.merge_slashes)
        if target is None:
            return False
        if self.record.target is self.head.target:  # no proxy before us has rewritten it
            self.record.target = target
        self.head.target = target
        return True

    def _may_upgrade(self, route: Route) -> bool:
        action = route.action
        override = action.upgrade_websocket if isinstance(action, RouteAction) and self.upgrade == b"websocket" else None
        return self.upgrade.decode("latin-1") in self.manager.upgrades if override is None else override

    @property
    def fault_id(self) -> str:
        """Of the devmesh Fault that has fired for it; empty: none."""
        return self._fault.fault_id

    def _inject_fault(self, decision: fault.FaultDecision) -> None:
        if not decision.fires:
            self._route_request()
            return
        self._fault = decision
        self.record.fault_id = decision.fault_id
        if decision.delay is not None:
            self.record.flags |= Flag.DI
            self._delay = asyncio.get_running_loop().call_later(decision.delay, self._after_delay)
        else:
            self._abort()

    def _after_delay(self) -> None:
        self._delay = None
        if self.ended:
            return
        if self._fault.aborts:
            self._abort()
            return
        if self.router is not None:
            self.router.delayed()
        self._route_request()

    def _abort(self) -> None:
        decision = self._fault
        status = decision.abort_status if decision.abort_status is not None else 200
        self.reply(LocalReply(status, b"fault filter abort", Flag.FI, "fault_filter_abort", grpc_status=decision.abort_grpc_status))

    def _route_request(self) -> None:
        route = self.route
        if route is None:
            return
        if route.cors is not None and self.router is not None:  # Envoy's filter leaves alone what goes nowhere
            self.cors_origin = cors.allowed_origin(route.cors, self.head)
            answer = cors.preflight(route.cors, self.head)
            if answer is not None:
                self._reply(LocalReply(200, b"", Flag.NONE, "cors_response", tuple(answer)), edited=False, plain=True)
                return
        action = route.action
        if self.router is not None:
            self.router.forward(route)
        elif isinstance(action, RedirectAction):
            self._redirect(action, route)
        elif isinstance(action, DirectResponseAction):
            self._answer_directly(action)

    def _answer_directly(self, action: DirectResponseAction) -> None:
        """Envoy names the request's own URL where the status may have a Location."""
        own = ((b"location", redirect_location(NOWHERE_ELSE, None, self.head)),) if replies.has_location(action.status) else ()
        self._reply(LocalReply(action.status, action.body, Flag.NONE, "direct_response", own), edited=True)

    def _redirect(self, action: RedirectAction, route: Route | None) -> None:
        location = redirect_location(action, route, self.head)
        self._reply(LocalReply(action.status, b"", Flag.NONE, "direct_response", ((b"location", location),)), edited=route is not None)

    def data(self, data: bytes) -> None:
        """A piece of the request body."""
        if self.ended:
            return  # the answer overtook it
        self.active = True
        if self.router is not None:
            self.router.data(data)

    def end(self) -> None:
        """The request is complete."""
        self.request_done = True
        if self.router is not None:
            self.router.end()

    # -- header edits ----------------------------------------------------------------------------------------------

    def edits(self) -> list[HeaderEdits]:
        """Most specific first, as Envoy applies them: weighted cluster, route, virtual host, table."""
        weighted = self.router.weighted if self.router is not None else None
        parts = (weighted, self.route, self.host, self.manager.route_table)
        return [part.edits for part in parts if part is not None and part.edits is not NO_EDITS]

    def edit_context(self, response: Headers) -> headers.EditContext:
        head, record = self.head, self.record
        return headers.EditContext(
            head.headers,
            response,
            record.downstream_remote,
            self.stream.local,
            upstream_host=record.upstream_host,
            method=head.method,
            authority=head.authority,
            target=head.target,
            status=record.status,
            route_name=record.route_name,
            direct_remote=self.stream.remote,
        )

    def _edit_response(self, pairs: Headers) -> None:
        if not self.manager.route_table.has_edits:
            return
        found = self.edits()
        if found:
            context = self.edit_context(pairs)
            for edits in found:
                headers.apply_edits(pairs, edits.response_add, edits.response_remove, context)

    # -- the response ----------------------------------------------------------------------------------------------

    def respond(self, head: ResponseHead, body: Body) -> None:
        """The upstream's final response head, which no retry will replace."""
        self.response_started = True
        record, route, pairs = self.record, self.route, head.headers
        record.status = head.status
        record.details = "via_upstream"
        now = self.proxy.now()
        service_time = record.upstream_service_time = now - self.started
        peer = forwarding.clean_response(head)
        if peer is not None and self.stream.direction is Direction.OUTBOUND:
            record.peer_metadata = peer
        self._edit_response(pairs)
        if route is not None and route.cors is not None:
            cors.on_response(route.cors, self.cors_origin, pairs)
        cookie = self.router.set_cookie if self.router is not None else None
        if cookie is not None:
            pairs.append((b"set-cookie", cookie))
        has = kinds(pairs, RESPONSE_KINDS) if self.manager.route_table.has_edits else head.has
        self._add_ours(pairs, decimal(int(service_time * 1000)), given=has & HAS_OURS != 0)
        if not has & HAS_DATE:
            pairs.append((b"date", replies.http_date_at(now)))
        if record.peer_metadata and self.stream.direction is Direction.INBOUND:
            pairs += self.proxy.peer_metadata
        if head.status == 204:
            remove_header(pairs, b"content-length")  # RFC 9110 section 8.6
        if self.head.method == b"HEAD":
            _frame(head.status, pairs)
        self.response_body = body
        self.downstream.send_head(head.status, pairs, chunked_from_close=isinstance(body, CloseBody))

    def _add_ours(self, pairs: Headers, service_time: bytes, *, given: bool) -> None:
        if given:
            set_header(pairs, b"x-envoy-upstream-service-time", service_time)
            set_header(pairs, b"server", self.manager.server_name)
        else:
            pairs.append((b"x-envoy-upstream-service-time", service_time))
            pairs.append((b"server", self.manager.server_name))

    def tunnel(self, connection: UpstreamConnection, head: ResponseHead) -> None:
        self.record.status, self.record.details = 101, "via_upstream"
        self.response_started = True
        self.downstream.tunnel(connection, head)

    def cut_short(self) -> None:
        """The upstream went away under a response, or under a tunnel, whose end is no failure."""
        if self.record.status == 101:
            self.downstream.close()
        else:
            framed = self.response_body is not None and not isinstance(self.response_body, CloseBody)
            self.record.flags |= Flag.UPE if framed else Flag.UC
            self.record.details = "upstream_reset_after_response_started{protocol_error}"
            self.downstream.reset()
        self.finish()

    def reply(self, reply: LocalReply) -> None:
        """Answer by ourselves; the request goes nowhere. Only a route that leads somewhere edits what is not its own answer."""
        self._reply(reply, edited=self.router is not None)

    def _for_grpc(self) -> bool:
        kind = get_header(self.head.headers, b"content-type") or b""
        return kind == b"application/grpc" or kind.startswith(b"application/grpc+")

    def _reply(self, reply: LocalReply, *, edited: bool, plain: bool = False) -> None:
        """`plain`: for gRPC callers too."""
        grpc = not plain and self._for_grpc()
        pairs = list(reply.headers)
        if edited:
            self._edit_response(pairs)
        status, pairs, body = replies.render(reply, pairs, grpc=grpc, date=replies.http_date(), server=self.manager.server_name)
        if self.route is not None:
            cors.on_response(self.route.cors, self.cors_origin, pairs)
        self.record.flags |= reply.flags
        self.record.details = reply.details
        self.record.status = status
        if self.head.method == b"HEAD" and not body:
            remove_header(pairs, b"content-length")
            remove_header(pairs, b"grpc-message")
            _frame(status, pairs)
        if reply.status == 400:
            self.downstream.last()  # as Envoy, to which a 400 of its own means that it may have lost track of the messages
        self.response_started = True
        if self.router is not None:
            self.router.abandon()
        self.downstream.send_head(status, pairs, chunked_from_close=False)
        if body and self.head.method != b"HEAD":
            self.record.bytes_sent += len(body)
            self.downstream.send_data(body)
        self.downstream.send_end()
        self.finish()

    # -- time, endings ---------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """The sweep's question: is anything overdue?"""
        if self.ended:
            self.proxy.sweep.discard(self)
            return
        router = self.router
        late = router.overdue(now) if router is not None else None
        if late is None and not self.active and self.idle_deadline is not None and now >= self.idle_deadline:
            late = router.timed_out(replies.STREAM_IDLE) if router is not None else replies.STREAM_IDLE
        if late is not None:
            self._give_up(late)
        elif self.active:
            self.active = False
            limit = self._idle_limit()
            self.idle_deadline = now + limit if limit is not None else None

    def _idle_limit(self) -> float | None:
        """stream_idle_timeout, which a route may replace. A tunnel has none: its bytes pass without the exchange."""
        if self.record.status == 101:
            return None
        own = self.router.action.idle_timeout if self.router is not None else None
        return own if own is not None else self.manager.stream_idle_timeout

    def _give_up(self, reply: LocalReply) -> None:
        if not self.response_started:
            self.reply(reply)
            return
        self.record.flags |= reply.flags
        self.record.details = reply.details
        self.downstream.reset()
        self.finish()

    def client_gone(self) -> None:
        if self.ended:
            return
        self.record.flags |= Flag.DC
        self.record.details = self.record.details if self.response_started else "downstream_remote_disconnect"
        if not self.response_started:
            self.record.status = 0
        if self.router is not None:
            self.router.abandon()
        self.finish()

    def finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._delay is not None:
            self._delay.cancel()
        if self.router is not None:
            self.router.stop()
            self.router = None  # a circle less for the garbage collector, with each request
        proxy = self.proxy
        self.record.duration = proxy.now() - self.started
        proxy.sweep.discard(self)
        proxy.exchanges.discard(self)
        proxy.record(self.record, self.manager)

    def pause_response(self) -> None:
        connection = self._connection()
        if connection is not None:
            connection.pause_reading()

    def resume_response(self) -> None:
        connection = self._connection()
        if connection is not None:
            connection.resume_reading()

    def _connection(self) -> UpstreamConnection | None:
        attempt = self.router.attempt if self.router is not None else None
        return attempt.connection if attempt is not None else None
