"""TcpProxy: bytes both ways, half-closes kept, one upstream connection a downstream connection."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from devmesh.sidecar import seam
from devmesh.sidecar.balancing import source_hash
from devmesh.sidecar.config import Endpoint, TcpProxy
from devmesh.sidecar.exchange import Stream
from devmesh.sidecar.http1.framing import FramingError
from devmesh.sidecar.http1.response import MAX_HEAD, parse_response
from devmesh.sidecar.record import Direction, Flag, Record
from devmesh.sidecar.seam import Handler
from devmesh.sidecar.target import Target, transport_for
from devmesh.sidecar.timers import Idle
from devmesh.sidecar.tls import Peer

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy

log = logging.getLogger(__name__)
TCP_ALPN = (b"istio",)


class TcpConnection(Handler):
    """The downstream half."""

    def __init__(self, proxy: Proxy, config: TcpProxy, stream: Stream) -> None:
        self.proxy, self.config, self.stream = proxy, config, stream
        self.transport: asyncio.Transport | None = None
        self.upstream: _Upstream | None = None
        self._early: list[bytes] = []
        self._early_eof = False
        self._ended = 0  # directions that have had their EOF
        self.record = Record(stream.direction, proxy.wall_ns(), protocol=b"TCP")
        self.record.downstream_remote, self.record.downstream_local = stream.remote, stream.local
        self.record.requested_server_name = stream.server_name
        if stream.peer is not None:
            self.record.mtls, self.record.peer_principal = True, stream.peer.spiffe_id
        self._started = proxy.now()
        self._over = False
        self._idle: Idle | None = None
        self._deadline: asyncio.TimerHandle | None = None  # max_downstream_connection_duration

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # a socket transport or TlsTransport
        self.proxy.connections.add(self)
        name = self._choose()
        cluster = self.proxy.config.clusters.get(name)
        if cluster is None:
            self._opened()
            self.record.flags |= Flag.NC
            self._finish()
            return
        self.record.upstream_cluster = name
        self._opened()
        if cluster.kind == "ORIGINAL_DST":
            endpoint: Endpoint | None = Endpoint(self.stream.original[0], cluster.original_dst_port or self.stream.original[1])
        else:
            hashed = source_hash(self.stream.remote.rpartition(":")[0]) if self.config.by_source else None
            endpoint = self.proxy.upstreams.choose(cluster, hashed, frozenset(), 0)
        if endpoint is None:
            self.record.flags |= Flag.UH
            self._finish()
            return
        if self.transport is not None:
            self.transport.pause_reading()
        if self.config.idle_timeout is not None:
            self._idle = Idle(self.config.idle_timeout, self.proxy.now, self._expired)
        if self.config.max_duration is not None:
            self._deadline = asyncio.get_running_loop().call_later(self.config.max_duration, self._lasted)
        self.record.upstream_host = f"{endpoint.address}:{endpoint.port}"
        self.record.fault_id = self.proxy.upstreams.partitions.cut.get(endpoint.address, "")
        tls = transport_for(cluster, endpoint)
        source = (self.stream.remote, self.stream.local)
        self.proxy.upstreams.open(Target(cluster, endpoint, tls, TCP_ALPN if tls else (), source), self._made, self.failed)

    def _opened(self) -> None:
        if self.config.recorded:
            self.proxy.tcp_opened(self.record)

    def _expired(self) -> bool:
        self._cut()
        return True

    def _lasted(self) -> None:
        self.record.flags |= Flag.DT
        self._cut()

    def _cut(self) -> None:
        """End both sides at once: what one of them does not read would keep the connection for ever (Envoy's NoFlush)."""
        transports = self.upstream.below if self.upstream is not None else None, self.transport
        self._finish()
        for transport in transports:
            if transport is not None:
                transport.abort()

    def _touch(self) -> None:
        if self._idle is not None:
            self._idle.touch()

    def _choose(self) -> str:
        mark = self.proxy.rng.random() * self.config.total_weight
        for cluster in self.config.clusters:
            mark -= cluster.weight
            if mark < 0:
                return cluster.name
        return self.config.clusters[-1].name

    def _made(self, peer: Peer) -> Handler:
        if peer.spiffe_id:
            self.record.mtls, self.record.peer_principal = True, peer.spiffe_id
        self.upstream = _Tunnel(self, self.config.tunnel) if self.config.tunnel else _Upstream(self)
        return self.upstream

    def failed(self, details: str) -> None:
        """The one attempt there is: Envoy flags it as the last of its retries, too."""
        self.record.flags |= Flag.UF | Flag.URX
        self.record.transport_failure = details
        self._finish()

    def upstream_ready(self) -> None:
        if self.upstream is None or self.transport is None:
            return
        if self._over:  # the client left meanwhile
            self.upstream.close()
            return
        for data in self._early:
            self.upstream.write(data)
        self._early.clear()
        if self._early_eof:
            self.upstream.write_eof()
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._touch()
        self.record.bytes_received += len(data)
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.write(data)
        else:
            self._early.append(data)

    def from_upstream(self, data: bytes) -> None:
        self._touch()
        self.record.bytes_sent += len(data)
        if self.transport is not None:
            self.transport.write(data)

    def upstream_eof(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
        self._direction_ended()

    def _direction_ended(self) -> None:
        """Nothing reports the loss of a connection that both sides have ended."""
        self._ended += 1
        if self._ended == 2:
            self._finish()

    def eof_received(self) -> bool:
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.write_eof()
        else:
            self._early_eof = True
        self._direction_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(reset=isinstance(exc, ConnectionResetError))

    def _finish(self, *, reset: bool = False) -> None:
        """Either side's end is the other's: a reset as a reset (Envoy's RST detection), all else when what it was sent has left."""
        if self._over:
            return
        self._over = True
        if self._idle is not None:
            self._idle.stop()
        if self._deadline is not None:
            self._deadline.cancel()
        self.proxy.connections.discard(self)
        for transport in (self.upstream.below if self.upstream is not None else None, self.transport):
            if transport is not None:
                if reset:
                    seam.reset(transport)
                else:
                    transport.close()
        self.record.duration = self.proxy.now() - self._started
        if self.config.recorded:
            self.proxy.tcp_closed(self.record, self.config)

    def upstream_lost(self, exc: Exception | None) -> None:
        self._finish(reset=isinstance(exc, ConnectionResetError))

    def idle(self) -> bool:
        return False

    def close(self) -> None:
        self._finish()

    def pause_writing(self) -> None:
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.resume_reading()


class _Upstream(Handler):
    """`transport` is there once bytes may pass, `below` as soon as there is something to close."""

    def __init__(self, owner: TcpConnection) -> None:
        self._owner = owner
        self.below: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.below = transport  # type: ignore[assignment] # a socket transport or TlsTransport
        self.opened()

    def opened(self) -> None:
        self.transport = self.below
        self._owner.upstream_ready()

    def rewire(self, transport: asyncio.BaseTransport) -> None:
        self.below = transport  # type: ignore[assignment] # as above
        if self.transport is not None:
            self.transport = self.below

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._owner.from_upstream(data)

    def eof_received(self) -> bool:
        self._owner.upstream_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.upstream_lost(exc)

    def pause_writing(self) -> None:
        if self._owner.transport is not None:
            self._owner.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._owner.transport is not None:
            self._owner.transport.resume_reading()


class _Tunnel(_Upstream):
    """Asks the upstream, an HTTP proxy, to CONNECT elsewhere (RFC 9110 section 9.3.6): all that follows the head of a 2xx is the tunnel's.

    The client's bytes wait for that. Whatever else is answered ends the client's connection with UF, URX (asked of Envoy 1.40).
    """

    def __init__(self, owner: TcpConnection, hostname: str) -> None:
        super().__init__(owner)
        self._hostname = hostname.encode()
        self._head: bytes | None = b""  # of the answer, until it is whole

    def opened(self) -> None:
        if self.below is not None:
            self.below.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (self._hostname, self._hostname))

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            super().data_received(data)
            return
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end and len(head) <= MAX_HEAD:
            self._head = head
            return
        self._head = None
        self._answered(head + end, rest)

    def _answered(self, head: bytes, rest: bytes) -> None:
        try:
            status = parse_response(head)[0].status
        except FramingError as error:
            log.info("tunnel to %s: %s", self._hostname.decode(), error)
            status = 0
        if not 200 <= status < 300:
            self._owner.failed(f"tunnel_response:{status}" if status else "protocol_error")
            return
        super().opened()
        if rest:
            super().data_received(rest)

    def eof_received(self) -> bool:
        return super().eof_received() if self._head is None else False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is None:
            super().connection_lost(exc)
        else:
            self._owner.failed("")


__all__ = ["Direction", "TcpConnection"]
