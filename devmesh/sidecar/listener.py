"""From an accepted socket to the handler of its filter chain: first bytes, chain, TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmesh.sidecar.chains import H2_PREFACE, First, inspect, select_chain
from devmesh.sidecar.config import FilterChain, HttpManager, Listener, TcpProxy
from devmesh.sidecar.downstream import HttpConnection
from devmesh.sidecar.exchange import Stream
from devmesh.sidecar.record import Direction
from devmesh.sidecar.seam import Handler, as_protocol
from devmesh.sidecar.tcp import TcpConnection
from devmesh.sidecar.tls import MESH_PAIR, Peer, TlsTransport

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """One listening socket. `original` is set for published sockets: the workload's own address that they stand for."""

    role: str  # one of bootstrap.DATA_ROLES
    address: str
    port: int
    sock: socket.socket
    original: tuple[str, int] | None = None


class Accepted(Handler):
    """A connection until its chain is known."""

    def __init__(self, proxy: Proxy, listener: Listener, direction: Direction, original: tuple[str, int]) -> None:
        self._proxy, self._listener, self._direction, self._original = proxy, listener, direction, original
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._chosen: Handler | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a socket transport
        self._proxy.undecided.add(transport)
        if self._server_may_speak_first():
            self._hand_over(First())
            return
        needs = (
            self._listener.inspect_tls
            or self._listener.inspect_http
            or any(c.tls or c.match.transport_protocol for c in self._listener.chains)
        )
        if not needs:
            self._hand_over(First(protocol="http/1.1"))
        elif self._listener.inspector_timeout:
            self._timer = asyncio.get_running_loop().call_later(self._listener.inspector_timeout, self._timed_out)

    def _server_may_speak_first(self) -> bool:
        """A plain TCP chain that nothing has to be read for, as MySQL or SMTP need it."""
        if self._listener.inspects(self._original[1]):
            return False
        chain = select_chain(self._listener, self._original, First())
        return chain is not None and chain.tls is None and isinstance(chain.network, TcpProxy)

    def data_received(self, data: bytes) -> None:
        if self._chosen is not None:  # what stood behind a CONNECT
            self._chosen.data_received(data)
            return
        self._buffer += data
        first = inspect(self._buffer)
        if first is not None:
            self._hand_over(first)

    def _timed_out(self) -> None:
        self._timer = None
        if self._listener.continue_on_inspector_timeout:
            self._hand_over(First())
        elif self._transport is not None:
            self._transport.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._decided()
        self._cancel()

    def _decided(self) -> None:
        if self._transport is not None:
            self._proxy.undecided.discard(self._transport)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hand_over(self, first: First) -> None:
        self._cancel()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if first.protocol == "h2c" or (first.tls is not None and {"h2", "istio-h2"} & set(first.tls.application_protocols)):
            self._saw_h2()
        chain = select_chain(self._listener, self._original, first)
        if chain is None:
            log.info("%s: no filter chain for a connection to port %s", self._listener.name, self._original[1])
            transport.close()
            return
        protocol = self._protocol(chain, first)
        if protocol is None:
            transport.close()
            return
        self._chosen = protocol
        transport.set_protocol(as_protocol(protocol))
        protocol.connection_made(transport)
        buffer, self._buffer = self._buffer, b""
        if buffer:
            protocol.data_received(buffer)

    def _protocol(self, chain: FilterChain, first: First) -> Handler | None:
        if chain.tls is None:
            return self._network(chain, None, first)
        context = self._proxy.contexts.server(chain.tls)
        if context is None:
            log.warning("%s: a TLS connection before the first certificate is refused", self._listener.name)
            return None
        tls = chain.tls
        return TlsTransport(context, tls, server=True, ready=lambda _, peer: self._network(chain, peer, first), failed=self._tls_failed)

    def _tls_failed(self, why: str) -> None:
        self._decided()
        self._proxy.count("ssl.connection_error")
        log.info("%s: TLS with %s failed: %s", self._listener.name, self._remote(), why)

    def _network(self, chain: FilterChain, peer: Peer | None, first: First) -> Handler:
        self._decided()
        network = chain.network
        name = first.tls.server_name if first.tls is not None else ""
        web = chain.tls is not None and chain.tls.secret != MESH_PAIR
        stream = Stream(self._direction, self._original, self._remote(), f"{self._original[0]}:{self._original[1]}", peer, name, web)
        if isinstance(network, TcpProxy):
            return TcpConnection(self._proxy, network, stream)

        def http() -> Handler:
            return HttpConnection(self._proxy, network, stream, relocate=lambda: self._relocate(first, peer))

        def h2() -> Handler:
            return TcpConnection(self._proxy, self._proxy.as_tcp(network, self._original, self._direction), stream)

        if first.protocol == "h2c" or (peer is not None and peer.alpn in ("istio-h2", "h2")):
            return h2()
        if peer is not None and peer.alpn in ("", "istio"):
            return _Inside(self._proxy, http, h2, self._saw_h2)
        return http()

    def _saw_h2(self) -> None:
        """Of our own ports: what a port elsewhere speaks, its own sidecar says."""
        if self._direction is Direction.INBOUND:
            self._proxy.saw_h2(self._original[1])

    def _relocate(self, first: First, peer: Peer | None) -> HttpManager | None:
        """The same connection's chain in the configuration that is in force now."""
        listener = self._proxy.config.listeners.get(self._listener.name)
        chain = select_chain(listener, self._original, first) if listener is not None else None
        if chain is None or not isinstance(chain.network, HttpManager) or (chain.tls is None) != (peer is None):
            return None
        return chain.network

    def _remote(self) -> str:
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if name else ""


class _Inside(Handler):
    """mTLS whose ALPN does not say what is inside: a caller's sidecar carries h2 as bytes, and only the preface tells."""

    def __init__(self, proxy: Proxy, http: Callable[[], Handler], h2: Callable[[], Handler], saw_h2: Callable[[], None]) -> None:
        self._proxy, self._http, self._h2, self._saw_h2 = proxy, http, h2, saw_h2
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a TlsTransport
        self._proxy.undecided.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._transport is not None:
            self._proxy.undecided.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = H2_PREFACE[:4]  # no HTTP/1.1 method begins like this
        if self._transport is None or (len(self._buffer) < len(start) and start.startswith(self._buffer)):
            return
        self._proxy.undecided.discard(self._transport)
        if self._buffer.startswith(start):
            self._saw_h2()
            protocol = self._h2()
        else:
            protocol = self._http()
        self._transport.set_protocol(as_protocol(protocol))
        protocol.connection_made(self._transport)
        protocol.data_received(self._buffer)

    def eof_received(self) -> bool:
        return False
