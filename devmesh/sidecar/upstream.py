"""Connections to endpoints: pools per (cluster, endpoint, transport), circuit breakers, outlier observation.

A connection goes back to its pool only when its request was sent whole and its response read whole.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from devmesh.sidecar.balancing import Balancer, key_of
from devmesh.sidecar.config import Cluster, Endpoint, TlsContext
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.http1.framing import NO_BODY, Body, CloseBody, FramingError
from devmesh.sidecar.http1.response import MAX_HEAD, parse_response, response_body
from devmesh.sidecar.message import ResponseHead
from devmesh.sidecar.partition import Partitions
from devmesh.sidecar.resilience import ClusterLoad, Failure, OutlierDetector
from devmesh.sidecar.routing import without_port
from devmesh.sidecar.seam import Handler, as_protocol
from devmesh.sidecar.timers import Idle
from devmesh.sidecar.tls import Contexts, Peer, TlsTransport

log = logging.getLogger(__name__)
HTTP_ALPN = (b"istio-http/1.1", b"istio", b"http/1.1")  # what Istio's istio.alpn filter offers for an HTTP/1.1 request


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


@dataclass(slots=True)
class Target:
    """Where one attempt goes and how."""

    cluster: Cluster
    endpoint: Endpoint
    tls: TlsContext | None
    alpn: tuple[bytes, ...] = ()

    @property
    def pool_key(self) -> tuple[str, TlsContext | None, tuple[bytes, ...]]:
        return (key_of(self.endpoint), self.tls, self.alpn)


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
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > MAX_HEAD:
                    raise FramingError("response head too large")
                if b"\n\n" in data or b"\n\r\n" in data:
                    raise FramingError("bare LF")  # a head that never ends
                self._buffer = data
                return None, b""
            head, self._keep = parse_response(data[:end])
            data = data[end:]
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
        keep = self._keep and self.request_sent
        self._body = None
        self.pool.release(self, keep=keep)
        if caller is not None:
            caller.response_end()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.idle is not None:
            self.idle.stop()
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


class Pool:
    """Connections to one endpoint over one transport."""

    __slots__ = ("address", "connecting", "endpoint", "idle", "load", "mesh", "open", "retired", "target", "upstreams", "waiting")

    def __init__(self, upstreams: Upstreams, target: Target) -> None:
        self.upstreams, self.target = upstreams, target
        self.endpoint = key_of(target.endpoint)
        self.address: tuple[str, int, bytes] | None = None  # how `http_pool` finds it
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


class Upstreams:
    """Everything that outlives a configuration: pools, loads, ejections; keyed by cluster name."""

    def __init__(
        self,
        contexts: Contexts,
        dial: dict[str, tuple[str, int]],
        now: Callable[[], float],
        rng: random.Random,
        dialer: Dialer | None = None,
    ) -> None:
        self._contexts, self._dial = contexts, dial
        self._dialer = dialer or Dialer()
        self.now, self._rng = now, rng
        self._pools: dict[tuple[str, tuple[object, ...]], Pool] = {}
        self._http_pools: dict[str, tuple[Cluster, dict[tuple[str, int, bytes], Pool]]] = {}
        self._retired: set[Pool] = set()
        self._loads: dict[str, ClusterLoad] = {}
        self._detectors: dict[str, OutlierDetector] = {}
        self._balancers: dict[str, Balancer] = {}
        self._active: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self.partitions = Partitions()

    def load(self, cluster: str) -> ClusterLoad:
        found = self._loads.get(cluster)
        if found is None:
            found = self._loads[cluster] = ClusterLoad()
        return found

    def configure(self, clusters: dict[str, Cluster]) -> None:
        """Keep what stays the same; idle connections of pools that are gone close."""
        for name, cluster in clusters.items():
            if cluster.outlier is not None:
                detector = self._detectors.setdefault(name, OutlierDetector(cluster.outlier))
                detector.settings = cluster.outlier
                detector.keep(key_of(e) for e in cluster.endpoints)
            else:
                self._detectors.pop(name, None)
            known = self._balancers.get(name)
            if known is None or known.cluster != cluster:
                self._balancers[name] = Balancer(cluster, self.ejected(name))
        keys = {name: {key_of(e) for e in cluster.endpoints} for name, cluster in clusters.items() if cluster.kind != "ORIGINAL_DST"}
        for key, pool in list(self._pools.items()):
            current = clusters.get(key[0])
            if current is not None:
                pool.target.cluster = current
            if current is None or pool.endpoint not in keys.get(key[0], (pool.endpoint,)):
                del self._pools[key]
                self._http_pools.pop(key[0], None)
                self._retire(pool)

    def _retire(self, pool: Pool) -> None:
        pool.retired = True
        self._retired.add(pool)
        for connection in list(pool.idle):
            connection.abandon()
        pool.forget_when_empty()

    def ejected(self, cluster: str) -> frozenset[str]:
        detector = self._detectors.get(cluster)
        return detector.ejected() if detector is not None else frozenset()

    def choose(self, cluster: Cluster, hash_value: int | None, tried: frozenset[str], tries: int) -> Endpoint | None:
        detector = self._detectors.get(cluster.name)
        if detector is not None:
            detector.tick(self.now())
        balancer = self._balancers.get(cluster.name)
        ejected = self.ejected(cluster.name)
        if balancer is None or balancer.ejected != ejected or (balancer.cluster is not cluster and balancer.cluster != cluster):
            balancer = self._balancers[cluster.name] = Balancer(cluster, ejected)
        return balancer.choose(hash_value, self.active, self._rng, tried, tries)

    def active(self, key: str) -> int:
        return self._active.get(key, 0)

    def began(self, key: str) -> None:
        self._active[key] = self._active.get(key, 0) + 1

    def ended(self, key: str) -> None:
        left = self._active.get(key, 1) - 1
        if left > 0:
            self._active[key] = left
        else:
            self._active.pop(key, None)

    def observe(self, cluster: str, key: str, status: int | None) -> None:
        """Tell the outlier detector of a response (status) or a local failure (None)."""
        detector = self._detectors.get(cluster)
        if detector is None:
            return
        if status is None:
            detector.failed_locally(key, self.now(), self._rng)
        else:
            detector.answered(key, status, self.now(), self._rng)

    def http_pool(self, cluster: Cluster, endpoint: Endpoint, authority: bytes = b"") -> Pool:
        """The pool of an HTTP/1.1 request; found again by address, since hashing a whole target costs as much as parsing a head.

        `authority` is the request's, after rewrites: with auto_sni it is the server name, and no connection serves two of them.
        """
        known = self._http_pools.get(cluster.name)
        if known is None or known[0] is not cluster:
            known = self._http_pools[cluster.name] = (cluster, {})
        host = without_port(authority) if cluster.auto_sni or cluster.auto_san_validation else b""
        address = (endpoint.address, endpoint.port, host)
        pool = known[1].get(address)
        if pool is None:
            pool = known[1][address] = self.pool(http_target(cluster, endpoint, host.decode("latin-1")))
            pool.address = address
        return pool

    def emptied(self, pool: Pool) -> None:
        """Forget a pool without connections where callers choose the address or the server name, and there is no end to them.

        Envoy forgets the hosts of ORIGINAL_DST clusters likewise, at the cleanup_interval after their last connection.
        """
        cluster = pool.target.cluster
        self._retired.discard(pool)
        endless = cluster.kind == "ORIGINAL_DST" or cluster.auto_sni or cluster.auto_san_validation
        if pool.retired or not endless:
            return
        self._pools.pop((cluster.name, pool.target.pool_key), None)
        known = self._http_pools.get(cluster.name)
        if known is not None and pool.address is not None and known[1].get(pool.address) is pool:
            del known[1][pool.address]

    def pool(self, target: Target) -> Pool:
        key = (target.cluster.name, target.pool_key)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self, target)
        pool.target.cluster = target.cluster
        return pool

    def address_of(self, target: Target) -> tuple[str, int]:
        """Where to dial: the runtime's table for our own app, the endpoint itself for all others.

        A workload that calls its own service goes out and comes in again, with mTLS and its inbound rules: the table is not for EDS endpoints.
        """
        endpoint = target.endpoint
        address = (endpoint.address, endpoint.port)
        return self._dial.get(f"{endpoint.address}:{endpoint.port}", address) if target.cluster.kind == "ORIGINAL_DST" else address

    def connect(self, pool: Pool) -> None:
        def made(peer: Peer) -> Handler:
            connection = UpstreamConnection(pool)
            connection.peer = peer
            return _Announce(connection, lambda: pool.connected(connection))

        self.open(pool.target, made, pool.connect_failed)

    def open(self, target: Target, made: Callable[[Peer], Handler], failed: Callable[[str], None]) -> None:
        """Connect (and shake hands); `made` gives the protocol, `failed` gets the detail text."""
        task = asyncio.get_running_loop().create_task(self._open(target, made, failed), name=f"connect {key_of(target.endpoint)}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, target: Target, made: Callable[[Peer], Handler], failed: Callable[[str], None]) -> None:
        host, port = self.address_of(target)
        make = self._handler(target, made, failed)
        if make is None:
            failed("remote_connection_failure|TLS_error:_no_certificate_yet:TLS_error_end")
            return
        bind, address, inner = target.cluster.bind_address, target.endpoint.address, make
        try:
            async with asyncio.timeout(target.cluster.connect_timeout):
                await self.partitions.passable(address)
                original = target.cluster.kind == "ORIGINAL_DST"
                await self._dialer.connect(lambda: self.partitions.first(address, inner()), host, port, bind, original=original)
        except TimeoutError:
            self._dialer.missed(host, port)
            failed("connection_timeout")
        except OSError as error:
            self._dialer.missed(host, port)
            # asyncio's own strerror names the address; Envoy's details name the error
            text = os.strerror(error.errno) if error.errno else str(error)
            failed(f"remote_connection_failure|delayed_connect_error:_{text.replace(' ', '_')}")

    def _handler(self, target: Target, made: Callable[[Peer], Handler], failed: Callable[[str], None]) -> Callable[[], Handler] | None:
        if target.tls is None:
            return lambda: made(Peer())
        context = self._contexts.client(target.tls, target.alpn or target.tls.alpn)
        if context is None:
            return None
        tls = target.tls
        return lambda: TlsTransport(
            context,
            tls,
            server=False,
            ready=lambda _, peer: made(peer),
            failed=lambda why: failed(f"remote_connection_failure|TLS_error:_{why.replace(' ', '_')}:TLS_error_end"),
        )

    def close_idle(self) -> None:
        self.draining = True
        for pool in list(self._pools.values()):
            for connection in list(pool.idle):
                connection.abandon()

    async def close(self) -> None:
        self.close_idle()
        for pool in [*self._pools.values(), *self._retired]:
            for connection in list(pool.open):
                connection.abandon()
        self.partitions.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Announce(Handler):
    """Hands the transport to the real protocol, then says so: the order asyncio itself gives no hook for."""

    def __init__(self, inner: UpstreamConnection, made: Callable[[], None]) -> None:
        self._inner, self._made = inner, made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(as_protocol(self._inner))
        self._inner.connection_made(transport)
        self._made()


def http_target(cluster: Cluster, endpoint: Endpoint, host: str = "") -> Target:
    """An HTTP/1.1 request's way to an endpoint; what is no mesh TLS is offered its own ALPN without h2."""
    tls = transport_for(cluster, endpoint)
    if tls is None:
        return Target(cluster, endpoint, None)
    if cluster.auto_sni and not _is_ip(host):  # RFC 6066 section 3: an address is no server name
        tls = replace(tls, sni=host)
    if cluster.auto_san_validation:
        tls = replace(tls, sans=(("exact", host.strip("[]")),))
    mesh = any(name.startswith(b"istio") for name in tls.alpn)
    return Target(cluster, endpoint, tls, HTTP_ALPN if mesh else tuple(name for name in tls.alpn if name != b"h2"))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def transport_for(cluster: Cluster, endpoint: Endpoint) -> TlsContext | None:
    """The first transport_socket_match contained in the endpoint's metadata, else the cluster's own."""
    labels = dict(endpoint.labels)
    for choice in cluster.transports:
        if all(labels.get(key) == value for key, value in choice.match):
            return choice.tls
    return cluster.tls
