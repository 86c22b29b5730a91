"""One HTTP/1.1 connection to an endpoint, and what it tells whoever uses it.

A connection goes back to its pool only when its request was sent whole and its response read whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from devmesh.sidecar.http1.framing import NO_BODY, Body, CloseBody, FramingError
from devmesh.sidecar.http1.response import MAX_HEAD, parse_lines, response_body
from devmesh.sidecar.message import ResponseHead
from devmesh.sidecar.resilience import Failure
from devmesh.sidecar.seam import Handler, as_protocol
from devmesh.sidecar.timers import Idle
from devmesh.sidecar.tls import Peer

if TYPE_CHECKING:
    from devmesh.sidecar.pool import Pool

log = logging.getLogger(__name__)


class Caller:
    """What uses a connection: an attempt, or a mirror that asks for nothing. Every call may end in the connection being released."""

    def connected(self, connection: UpstreamConnection) -> None:
        pass

    def response_head(self, head: ResponseHead, body: Body) -> None:
        pass

    def response_data(self, data: bytes) -> None:
        pass

    def response_end(self) -> None:
        pass

    def response_pause(self) -> None:
        pass

    def failed(self, failure: Failure, details: str) -> None:
        pass

    def pause_request(self) -> None:
        pass

    def resume_request(self) -> None:
        pass


class UpstreamConnection(Handler):
    """One HTTP/1.1 connection to an endpoint; serves one caller at a time."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.caller: Caller | None = None
        self.peer = Peer()
        self.requests = 0
        self.method = b"GET"
        self.request_sent = False
        self.raw: Callable[[bytes], None] | None = None  # after 101: bytes pass through
        self._buffer = b""
        self._body: Body | None = None
        self._keep = True
        self.idle: Idle | None = None
        self.worn = False  # past max_connection_duration: the exchange under way is the last one
        self._lifetime: asyncio.TimerHandle | None = None
        self.local_address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # a socket transport or TlsTransport
        name = transport.get_extra_info("sockname")
        self.local_address = f"{name[0]}:{name[1]}" if name else ""

    def rewire(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # as above

    def rest(self) -> None:
        """Idle from now on, for as long as the cluster's idle_timeout lets it."""
        limit = self.pool.target.cluster.idle_timeout
        if self.idle is not None:
            self.idle.touch()
        elif limit is not None:
            self.idle = Idle(limit, self.pool.upstreams.now, self._expired)

    def last(self, seconds: float) -> None:
        """Serve no new request once `seconds` have passed (Envoy's draining)."""
        self._lifetime = asyncio.get_running_loop().call_later(seconds, self._wear)

    def _wear(self) -> None:
        self._lifetime, self.worn = None, True
        self._expired()

    def _expired(self) -> bool:
        if self in self.pool.idle:
            self._drop()
            return True
        return False

    def begin(self, caller: Caller, method: bytes) -> None:
        self.caller, self.method = caller, method
        self.requests += 1
        self.request_sent = False
        self._body, self._keep = None, True

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw(data)
            return
        if self.caller is None:
            self._drop()  # bytes that answer nothing: the pool would be poisoned
            return
        try:
            self._receive(data)
        except FramingError as error:
            log.info("upstream %s: %s", self.pool.target.endpoint.address, error)
            self._fail(Failure.RESET, "protocol_error")

    def _receive(self, data: bytes) -> None:
        body: Body | None = self._body
        if body is None:
            body, data = self._heads(self._buffer + data if self._buffer else data)
        caller = self.caller
        if body is None or caller is None:
            return
        if not body.done and data:
            taken = body.feed(data)
            caller.response_data(data if taken == len(data) else data[:taken])
            if taken < len(data):
                self._keep = False  # more bytes than the message has
        if self.caller is caller:
            if body.done:
                self._finish()
            else:
                caller.response_pause()

    def _heads(self, data: bytes) -> tuple[Body | None, bytes]:
        """Parse response heads (1xx are passed on at once): the final one's body and what is here of it, once there is a final one."""
        self._buffer = b""
        while True:
            text, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                if len(data) > MAX_HEAD:
                    raise FramingError("response head too large")
                if b"\n\n" in data or b"\n\r\n" in data:
                    raise FramingError("bare LF")  # a head that never ends
                self._buffer = data
                return None, b""
            head, self._keep = parse_lines(text)
            data = rest
            caller = self.caller
            if caller is None:
                return None, b""
            if head.status < 200 and head.status != 101:
                caller.response_head(head, NO_BODY)
                continue
            body = self._body = response_body(head, self.method)
            caller.response_head(head, body)
            if self.raw is None:
                return body, data
            if data:
                self.raw(data)
            return None, b""

    def _finish(self) -> None:
        caller, self.caller = self.caller, None
        keep = self._keep and self.request_sent and not self.worn
        self._body = None
        self.pool.release(self, keep=keep)
        if caller is not None:
            caller.response_end()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.idle is not None:
            self.idle.stop()
        if self._lifetime is not None:
            self._lifetime.cancel()
        if isinstance(self._body, CloseBody) and self.caller is not None:
            self._keep = False
            self._finish()
            return
        self._fail(Failure.RESET, "connection_termination")

    def _fail(self, failure: Failure, details: str) -> None:
        caller, self.caller = self.caller, None
        self._drop()
        if caller is not None:
            caller.failed(failure, details)

    def abandon(self) -> None:
        """The caller has no more interest (timeout, client gone, retry)."""
        self.caller = None
        self._drop()

    def _drop(self) -> None:
        self.pool.closed(self)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def pause_writing(self) -> None:
        if self.caller is not None:
            self.caller.pause_request()

    def resume_writing(self) -> None:
        if self.caller is not None:
            self.caller.resume_request()

    def pause_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


class Announce(Handler):
    """Hands the transport to the real protocol, then says so: the order asyncio itself gives no hook for."""

    def __init__(self, inner: UpstreamConnection, made: Callable[[], None]) -> None:
        self._inner, self._made = inner, made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(as_protocol(self._inner))
        self._inner.connection_made(transport)
        self._made()
