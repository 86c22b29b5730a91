"""Mirrored requests: sent beside the real one, answers read and thrown away (RouteAction.request_mirror_policies)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmesh.sidecar.forwarding import needs_length
from devmesh.sidecar.message import RequestHead
from devmesh.sidecar.pool import Pool
from devmesh.sidecar.resilience import Failure
from devmesh.sidecar.upstream_connection import Caller, UpstreamConnection

if TYPE_CHECKING:
    from devmesh.sidecar.proxy import Proxy

LIMIT = 1024 * 1024  # bytes of a body that is mirrored; a longer one cuts the mirror off, as Envoy's buffer limit does


class Mirrored:
    """Collects one request and sends it once it is whole."""

    def __init__(self, proxy: Proxy, cluster: str, head: RequestHead, timeout: float | None) -> None:
        """`timeout` is the route's, in seconds: it holds for the mirrored request too, and no other limit does."""
        self._proxy, self._cluster, self._timeout = proxy, cluster, timeout
        lines = [head.method + b" " + head.target + b" HTTP/1.1\r\nhost: " + head.authority]
        lines += [name + b": " + value for name, value in head.headers if name != b"host"]
        if needs_length(head.method, head.headers):
            lines.append(b"content-length: 0")
        self._authority = head.authority
        self._request = b"\r\n".join(lines) + b"\r\n\r\n"
        self._method = head.method
        self._body: list[bytes] | None = []
        self._size = 0

    def data(self, data: bytes) -> None:
        self._size += len(data)
        if self._body is not None and self._size <= LIMIT:
            self._body.append(data)
        else:
            self._body = None

    def end(self) -> None:
        cluster = self._proxy.config.clusters.get(self._cluster)
        body, self._body = self._body, None
        if cluster is None or body is None:
            return
        endpoint = self._proxy.upstreams.choose(cluster, None, frozenset(), 0)
        if endpoint is None:
            return
        pool = self._proxy.upstreams.http_pool(cluster, endpoint, self._authority)
        _Discard(self._proxy, pool, self._request + b"".join(body), self._timeout).start(self._method)

    def cut_off(self) -> None:
        """The real exchange is over: a request that never became whole is not mirrored."""
        self._body = None


class _Discard(Caller):
    """Sends, and lets the answer pass."""

    def __init__(self, proxy: Proxy, pool: Pool, request: bytes, timeout: float | None) -> None:
        self._proxy, self._pool, self._request = proxy, pool, request
        self._deadline = None if timeout is None else proxy.now() + timeout
        self._connection: UpstreamConnection | None = None

    def start(self, method: bytes) -> None:
        if self._pool.acquire(self, method) and self._deadline is not None:
            self._proxy.sweep.add(self)

    def check(self, now: float) -> None:
        """The sweep's question: is it overdue?"""
        if self._deadline is None or now < self._deadline:
            return
        self._proxy.sweep.discard(self)
        if self._connection is not None:
            self._connection.abandon()
        else:
            self._pool.forget(self)

    def connected(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.request_sent = True
        connection.write(self._request)

    def response_end(self) -> None:
        self._over()

    def failed(self, failure: Failure, details: str) -> None:
        del failure, details
        self._over()

    def _over(self) -> None:
        self._connection = None
        self._proxy.sweep.discard(self)
