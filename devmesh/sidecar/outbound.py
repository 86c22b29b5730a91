"""Proxy requests (RFC 9112 section 3.2.2 absolute-form, RFC 9110 section 9.3.6 CONNECT): one more way to learn the original destination.

`http://reviews:9080/` and `CONNECT reviews:9080` mean (VIP of reviews, 9080); from there they go the way of a redirected connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from devmesh.sidecar import replies
from devmesh.sidecar.chains import First, select_chain
from devmesh.sidecar.config import (
    FilterChain,
    HttpManager,
    PathMatcher,
    Route,
    RouteAction,
    RouteMatch,
    RouteTable,
    TcpProxy,
    VirtualHost,
    WeightedCluster,
)
from devmesh.sidecar.downstream import HttpConnection
from devmesh.sidecar.exchange import Exchange, Stream
from devmesh.sidecar.http1.request import Absolute
from devmesh.sidecar.listener import Accepted
from devmesh.sidecar.message import RequestHead
from devmesh.sidecar.record import Direction
from devmesh.sidecar.seam import as_protocol

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy

log = logging.getLogger(__name__)
ORIGIN_FORM = replies.LocalReply(
    400, b"devmesh: this is a proxy port; ask it for http://host:port/path or CONNECT host:port\n", details="proxy_request_expected"
)
FORBIDDEN = replies.LocalReply(
    403, b"devmesh: loopback, link-local and the mesh's own listeners are not reached through the proxy\n", details="forbidden_destination"
)
UNRESOLVED = replies.LocalReply(
    502, b"devmesh: the host name is unknown in the mesh and to the resolver\n", details="dns_resolution_failure"
)
ANY = "0.0.0.0"  # the address in the names of listeners for all addresses; nothing is bound
HTTP1 = First(protocol="http/1.1")


class ProxyRequests:
    """Resolves the destination of each proxy request."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._tasks: set[asyncio.Task[None]] = set()

    def connection(self, transport: asyncio.BaseTransport) -> HttpConnection:
        remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        stream = Stream(Direction.OUTBOUND, ("0.0.0.0", 0), f"{remote[0]}:{remote[1]}", f"{local[0]}:{local[1]}")
        return HttpConnection(self._proxy, self._manager("PassthroughCluster"), stream, self._resolve)

    def _resolve(self, connection: HttpConnection, head: RequestHead, named: Absolute | None) -> tuple[HttpManager, Stream] | None:
        found = destination(head, named)
        if found is None:
            self._refuse(connection, head, ORIGIN_FORM)
            return None
        host, port = found
        ips = self._proxy.config.names.get(host)
        if ips or self._is_told_by_name(host, port):
            return self._toward(connection, head, ips[0] if ips else ANY, port)
        task = asyncio.get_running_loop().create_task(self._outside(connection, head, host, port), name=f"resolve {host}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    def _is_told_by_name(self, host: str, port: int) -> bool:
        """A ServiceEntry's host whose cluster finds its endpoints itself: by Host or SNI it is known at any address, unless ranges of them tell."""
        cluster = self._proxy.config.clusters.get(f"outbound|{port}||{host}")
        listener = self._proxy.outbound_listener(ANY, port)
        return cluster is not None and cluster.kind != "ORIGINAL_DST" and not (listener is not None and listener.by_address)

    async def _outside(self, connection: HttpConnection, head: RequestHead, host: str, port: int) -> None:
        """A destination that the mesh does not know: resolve it, refuse what is this machine's own."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, OverflowError):  # unknown, no host name at all, no port
            self._refuse(connection, head, UNRESOLVED)
            return
        ip = str(found[0][4][0])
        if forbidden(ip) or (ip, port) in self._proxy.own_addresses:
            self._refuse(connection, head, FORBIDDEN)
            return
        resolved = self._toward(connection, head, ip, port)
        if resolved is not None:
            connection.run(head, *resolved)

    def _toward(self, connection: HttpConnection, head: RequestHead, ip: str, port: int) -> tuple[HttpManager, Stream] | None:
        stream = replace(connection.stream, original=(ip, port), local=f"{ip}:{port}")
        if head.method == b"CONNECT":
            self._connect(connection, ip, port)
            return None
        return self._http_manager(ip, port), stream

    def _connect(self, connection: HttpConnection, ip: str, port: int) -> None:
        """Answer 200; from here on the connection is one to (ip, port)."""
        listener = self._proxy.outbound_listener(ip, port)
        transport = connection.transport
        if transport is None:
            return
        if listener is None:
            transport.close()
            return
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self._proxy.connections.discard(connection)
        accepted = Accepted(self._proxy, listener, Direction.OUTBOUND, (ip, port))
        transport.set_protocol(as_protocol(accepted))
        accepted.connection_made(transport)
        rest = connection.take_buffer()
        if rest:
            accepted.data_received(rest)

    def _http_manager(self, ip: str, port: int) -> HttpManager:
        """The HTTP chain that a redirected plaintext request to (ip, port) would meet; a TCP chain's cluster gets a manager of its own."""
        listener = self._proxy.outbound_listener(ip, port)
        chain: FilterChain | None = select_chain(listener, (ip, port), HTTP1) if listener is not None else None
        if chain is None:
            return self._manager("BlackHoleCluster")
        if isinstance(chain.network, TcpProxy):
            return self._manager(chain.network.clusters[0].name)
        return chain.network

    def _manager(self, cluster: str) -> HttpManager:
        """Everything to one cluster: what TCP would do with this request, asked in HTTP."""
        action = RouteAction((WeightedCluster(cluster, 1),), 1, None)
        route = Route("allow_any", RouteMatch(PathMatcher(lambda _: True, b"", "prefix:/")), action)
        host = VirtualHost("allow_any", (b"*",), (route,))
        return HttpManager(
            f"proxy_{cluster}",
            RouteTable("proxy", (host,), {}, (), host),
            (),
            upgrades=frozenset({"websocket"}),
            tracing=True,
            access_log=True,
        )

    def _refuse(self, connection: HttpConnection, head: RequestHead, reply: replies.LocalReply) -> None:
        exchange = Exchange(self._proxy, connection, connection.manager, connection.stream, head)
        connection.answer(exchange, reply)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def destination(head: RequestHead, named: Absolute | None) -> tuple[str, int] | None:
    """(host, port) of a CONNECT or of what an absolute-form target names; None for what no proxy here takes.

    RFC 9112 section 3.2.2: a proxy ignores the received Host and uses the target's authority.
    """
    if head.method == b"CONNECT":
        host, _, port = head.target.decode("latin-1").rpartition(":")
        return (host.strip("[]").lower(), int(port)) if host and port.isdecimal() and int(port) < 65_536 else None
    if named is None or named.scheme != "http":
        return None
    return named.host, named.port or 80


def forbidden(ip: str) -> bool:
    """Loopback, link-local and unspecified addresses belong to this machine, not to the outside."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_loopback or address.is_link_local or address.is_unspecified
