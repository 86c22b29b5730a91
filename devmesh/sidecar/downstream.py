"""The client's side of HTTP/1.1: heads cut out of the stream, one exchange at a time, pipelined requests served in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from devmesh.sidecar import replies
from devmesh.sidecar.config import HttpManager
from devmesh.sidecar.exchange import Downstream, Exchange, Stream
from devmesh.sidecar.http1.framing import NO_BODY, Body, FramingError
from devmesh.sidecar.http1.request import TOO_LARGE, Absolute, BadRequest, RequestHeads, to_origin_form
from devmesh.sidecar.message import Headers, RequestHead, ResponseHead, get_header
from devmesh.sidecar.record import Flag, Record
from devmesh.sidecar.timers import Idle

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy
    from devmesh.sidecar.upstream_connection import UpstreamConnection

LINGER: Final = 1.0  # seconds, Envoy's delayed_close_timeout
CR: Final = 13
LF: Final = 10
PIPELINE_LIMIT: Final = 64 * 1024  # bytes kept of requests behind the one in flight; reading stops there
Resolve = Callable[["HttpConnection", RequestHead, Absolute | None], "tuple[HttpManager, Stream] | None"]


class HttpConnection(Downstream):
    """One downstream connection.

    `resolve` is set where each request names its own destination (proxy requests); `relocate` finds the connection's chain in the
    configuration in force, None when it would not be accepted there any more (a port that became STRICT).
    """

    def __init__(
        self,
        proxy: Proxy,
        manager: HttpManager,
        stream: Stream,
        resolve: Resolve | None = None,
        relocate: Callable[[], HttpManager | None] | None = None,
    ) -> None:
        self.proxy, self.manager, self.stream = proxy, manager, stream
        self._resolve, self._relocate = resolve, relocate
        self._config = proxy.config
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._heads = RequestHeads()
        self._body: Body = NO_BODY
        self._exchange: Exchange | None = None
        self._response_done = True
        self._chunked = False
        self._head = b""  # written together with the first piece of the body: one packet, one TLS record
        self._close_after = False
        self._resolving = False  # the current request's destination is being looked up: what comes behind it waits
        self._lingering: asyncio.TimerHandle | None = None  # what comes is dropped
        self._tunnelled: UpstreamConnection | None = None
        self._idle: Idle | None = None
        self._awaited: asyncio.TimerHandle | None = None  # the rest of a request that has begun
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # a socket transport or TlsTransport
        self.proxy.connections.add(self)
        if self.manager.idle_timeout is not None:
            self._idle = Idle(self.manager.idle_timeout, self.proxy.now, self._expired)

    def _expired(self) -> bool:
        if self.idle():
            self.close()
        return self.idle()

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            return
        if self._tunnelled is not None:
            self._to_tunnel(self._tunnelled, data)
            return
        if self._exchange is not None and not self._body.done:
            data = self._feed_body(data)
        if data:
            self._buffer = self._buffer + data if self._buffer else data
            self._next()

    def _feed_body(self, data: bytes) -> bytes:
        exchange = self._exchange
        if exchange is None:
            return data
        try:
            taken = self._body.feed(data)
        except FramingError:
            self._broken(exchange)
            return b""
        if taken:
            exchange.record.bytes_received = self._body.content
            exchange.data(data if taken == len(data) else data[:taken])
        if self._body.done and not exchange.request_done:
            self._stop_awaiting()
            exchange.end()
            if self._response_done:
                self._exchange = None
        return data[taken:]

    def _broken(self, exchange: Exchange) -> None:
        """Where this request ends is unknown, and so is everything behind it."""
        self._close_after = True
        if exchange.ended:
            self._shut()
        elif exchange.response_started:
            exchange.record.flags |= Flag.DPE
            exchange.client_gone()
            self.reset()
        else:
            exchange.reply(replies.LocalReply(400, b"Bad Request", Flag.DPE, "http1.codec_error"))

    def _next(self) -> None:
        """Start the next request when the previous exchange is over."""
        while self._may_start() and self.transport is not None:
            if self._close_after:
                self.transport.close()
                return
            start = self._buffer
            if start[0] == CR or start[0] == LF:  # RFC 9112 section 2.2: an empty line before a request is passed over
                start = self._buffer = start.lstrip(b"\r\n")
            end = start.find(b"\r\n\r\n")
            limit = self.manager.max_request_headers_kb * 1024
            if end + 4 > limit or (end < 0 and len(start) > limit):
                self._refuse(BadRequest(*TOO_LARGE))
                return
            if end < 0:
                if start:
                    self._await_rest(self.manager)
                    self._check_start(start)
                return
            if end + 4 == len(start):  # nothing behind it, as nearly always: no copy
                self._buffer = b""
            else:
                start, self._buffer = start[: end + 4], start[end + 4 :]
            if not self._begin(start):
                return
        if len(self._buffer) > PIPELINE_LIMIT and (self._exchange is not None or self._resolving):
            self.pause_reading()

    def _await_rest(self, manager: HttpManager) -> None:
        """request_timeout: from the request's first byte to its last, unless the answer begins before."""
        if manager.request_timeout is not None and self._awaited is None:
            self._awaited = asyncio.get_running_loop().call_later(manager.request_timeout, self._overdue)

    def _stop_awaiting(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _overdue(self) -> None:
        self._awaited = None
        reply = replies.REQUEST_TIMEOUT
        if self._exchange is not None:
            self._exchange.reply(reply)
        else:
            self._refuse(BadRequest(reply.status, reply.body, reply.details, protocol_error=False))

    def _may_start(self) -> bool:
        if self._exchange is not None or self._resolving or self._lingering is not None or not self._buffer:
            return False
        return self.transport is not None and not self.transport.is_closing()

    def _check_start(self, start: bytes) -> None:
        """Refuse at once what can never become a head: a bare LF line end, or bytes that are no method."""
        line = start[:32].partition(b" ")[0]
        if b"\n" in start.replace(b"\r\n", b"") or not line.replace(b"-", b"").replace(b"_", b"").isalnum():
            self._refuse(BadRequest(400, b"Bad Request", "http1.codec_error"))

    def _follow_configuration(self) -> bool:
        """A request meets the configuration in force when it begins, also on an old connection; False: the connection had to go."""
        if self._relocate is None or self._config is self.proxy.config:
            return True
        manager = self._relocate()
        if manager is None:
            self.close()
            return False
        self._config, self.manager = self.proxy.config, manager
        return True

    def _begin(self, raw: bytes) -> bool:
        if not self._follow_configuration():
            return False
        try:
            head, self._body = self._heads.parse(raw, self.manager.max_headers_count)
            named = to_origin_form(head)
        except BadRequest as error:
            self._refuse(error)
            return False
        if self.stream.peer is not None:
            head.scheme = b"https"
        if self._body.done:
            self._stop_awaiting()
        # Whoever asked for a tunnel does not speak HTTP any more, whatever the answer was.
        self._close_after = head.close or head.method == b"CONNECT"
        self._response_done = False
        if self._resolve is not None:
            self._resolving = True
            resolved = self._resolve(self, head, named)
            if resolved is None:
                return False  # it took the connection over or answers later
            self.run(head, *resolved)
        else:
            self._run(head, self.manager, self.stream)
        return True

    def run(self, head: RequestHead, manager: HttpManager, stream: Stream) -> None:
        """Start the exchange; the body that is already here follows."""
        self._resolving = False
        if self.transport is None or self.transport.is_closing() or self._lingering is not None:
            return  # the client left, or was too slow, while its host was looked up
        self._run(head, manager, stream)

    def _run(self, head: RequestHead, manager: HttpManager, stream: Stream) -> None:
        complete = self._body.done
        exchange = self._exchange = Exchange(self.proxy, self, manager, stream, head, complete=complete)
        if not complete:
            self._await_rest(manager)
        exchange.start()
        if complete:
            if self._response_done:
                self._exchange = None
        elif self._buffer:
            data, self._buffer = self._buffer, b""
            self._buffer = self._feed_body(data)

    def take_buffer(self) -> bytes:
        """What came behind the head, when somebody else takes the connection over."""
        buffer, self._buffer = self._buffer, b""
        return buffer

    def answer(self, exchange: Exchange, reply: replies.LocalReply) -> None:
        """A reply to a request that goes nowhere; the connection closes after it."""
        self._exchange = exchange
        self._resolving = False
        self._close_after = True
        exchange.reply(reply)

    def _refuse(self, error: BadRequest) -> None:
        """Answer a request that no exchange will see, and close."""
        reply = replies.LocalReply(error.status, error.body, Flag.DPE if error.protocol_error else Flag.NONE, error.details)
        status, headers, body = replies.render(reply, [], grpc=False, date=replies.http_date(), server=self.manager.server_name)
        self._buffer = b""
        self._stop_awaiting()
        self._write_head(status, [*headers, (b"connection", b"close")])
        if self.transport is not None:
            self.transport.write(body)
        self._shut()
        record = Record(self.stream.direction, self.proxy.wall_ns())
        record.status, record.flags, record.details = status, reply.flags, error.details
        record.bytes_sent = len(body)
        if error.head is not None:
            record.method, record.target, record.request_headers = error.head.method, error.head.target, error.head.headers
            record.request_id = get_header(error.head.headers, b"x-request-id") or b""
        record.downstream_remote, record.downstream_local = self.stream.remote, self.stream.local
        self.proxy.record(record, self.manager)

    # Downstream, as the exchange sees it.
    def last(self) -> None:
        self._close_after = True

    def send_head(self, status: int, headers: Headers, *, chunked_from_close: bool) -> None:
        self._stop_awaiting()
        self._chunked = chunked_from_close
        if chunked_from_close:
            headers.append((b"transfer-encoding", b"chunked"))
        if self._close_after or self.proxy.draining or (self._exchange is not None and not self._body.done):
            self._close_after = True
            headers.append((b"connection", b"close"))
        self._head = _render_head(status, headers)

    def flush(self) -> None:
        head, self._head = self._head, b""
        if head and self.transport is not None:
            self.transport.write(head)

    def _write_head(self, status: int, headers: Headers) -> None:
        if self.transport is not None:
            self.transport.write(_render_head(status, headers))

    def send_data(self, data: bytes) -> None:
        if self.transport is not None:
            head, self._head = self._head, b""
            self.transport.write(head + (b"%x\r\n" % len(data) + data + b"\r\n" if self._chunked else data))

    def send_end(self) -> None:
        self.flush()
        if self._chunked and self.transport is not None:
            self.transport.write(b"0\r\n\r\n")
        self._chunked = False
        self._response_done = True
        if self._idle is not None:
            self._idle.touch()
        if self._close_after:
            if self._body.done:
                self.close()
            else:
                self._shut()
            return
        self.resume_reading()
        if self._body.done:
            self._exchange = None
            if self._buffer:
                asyncio.get_running_loop().call_soon(self._next)

    def send_informational(self, head: ResponseHead) -> None:
        self._write_head(head.status, head.headers)

    def reset(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def tunnel(self, connection: UpstreamConnection, head: ResponseHead) -> None:
        """101: from here on bytes pass both ways."""
        self._write_head(head.status, head.headers)
        self._tunnelled = connection
        connection.raw = self._tunnel_data
        if self._buffer:
            self._to_tunnel(connection, self.take_buffer())

    def _to_tunnel(self, connection: UpstreamConnection, data: bytes) -> None:
        connection.write(data)
        if self._exchange is not None:
            self._exchange.record.bytes_received += len(data)

    def _tunnel_data(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)
        if self._exchange is not None:
            self._exchange.record.bytes_sent += len(data)

    def idle(self) -> bool:
        return (self._exchange is None and self._tunnelled is None and not self._resolving) or self._lingering is not None

    def _shut(self) -> None:
        """Close when the client has, or soon: a close under bytes still coming is a reset, which would take our answer from it (RFC 9112 section 9.6)."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._lingering is not None:
            return
        self._buffer = b""
        transport.write_eof()
        self._lingering = asyncio.get_running_loop().call_later(LINGER, self.close)
        self.resume_reading()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    # asyncio
    def eof_received(self) -> bool:
        if self._tunnelled is not None and self._tunnelled.transport is not None:
            self._tunnelled.transport.close()
        return False  # as Envoy, which takes a half-closed HTTP client for one that left (enable_half_close is for TCP)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.proxy.connections.discard(self)
        self._stop_awaiting()
        if self._lingering is not None:
            self._lingering.cancel()
        if self._idle is not None:
            self._idle.stop()
        if self._tunnelled is not None:
            self._tunnelled.abandon()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        if self._tunnelled is not None:
            self._tunnelled.pause_reading()
        elif self._exchange is not None:
            self._exchange.pause_response()

    def resume_writing(self) -> None:
        if self._tunnelled is not None:
            self._tunnelled.resume_reading()
        elif self._exchange is not None:
            self._exchange.resume_response()

    def pause_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()


def _render_head(status: int, headers: Headers) -> bytes:
    lines = [b"%b: %b" % (name, value) for name, value in headers]
    lines.append(b"\r\n")
    return replies.status_line(status) + b"\r\n".join(lines)
