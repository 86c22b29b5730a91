"""What outlives a configuration: pools per (cluster, endpoint, transport), loads, ejections; and how a connection is made."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Final

from devmesh.sidecar.balancing import Balancer, key_of
from devmesh.sidecar.config import Cluster, Endpoint
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.keepalive import keep_alive
from devmesh.sidecar.partition import Partitions
from devmesh.sidecar.pool import HttpAddress, Pool
from devmesh.sidecar.proxy_protocol import Preface
from devmesh.sidecar.resilience import ClusterLoad, EndpointLoad, OutlierDetector, Recent
from devmesh.sidecar.resolving import Lookup, Resolving, Sleep, machine_lookup, names_of
from devmesh.sidecar.routing import without_port
from devmesh.sidecar.seam import Handler
from devmesh.sidecar.slow_start import Warming
from devmesh.sidecar.target import Target, http_target
from devmesh.sidecar.tls import Contexts, Peer, TlsTransport
from devmesh.sidecar.upstream_connection import Announce, UpstreamConnection

NOBODY: Final[frozenset[str]] = frozenset()


class _HttpPools:
    """Of one cluster, as it is configured now; `by_endpoint` goes by the identity of endpoints, which are kept, so that no other has it."""

    __slots__ = ("by_address", "by_endpoint", "cluster", "endpoints", "plain")

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.by_address: dict[HttpAddress, Pool] = {}
        self.by_endpoint: dict[int, Pool] = {}
        self.endpoints: list[Endpoint] = []
        named = cluster.auto_sni or cluster.auto_san_validation
        self.plain = cluster.kind != "ORIGINAL_DST" and not named  # an endpoint has one pool, whatever is asked


class Upstreams:
    """Keyed by cluster name."""

    def __init__(
        self,
        contexts: Contexts,
        dial: dict[str, tuple[str, int]],
        now: Callable[[], float],
        rng: random.Random,
        dialer: Dialer | None = None,
        lookup: Lookup = machine_lookup,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._contexts, self._dial = contexts, dial
        self._dialer = dialer or Dialer()
        self.now, self._rng = now, rng
        self._pools: dict[tuple[str, tuple[object, ...]], Pool] = {}
        self._http_pools: dict[str, _HttpPools] = {}
        self._retired: set[Pool] = set()
        self._loads: dict[str, ClusterLoad] = {}
        self._detectors: dict[str, OutlierDetector] = {}
        self._balancers: dict[str, Balancer] = {}
        self._warming: dict[str, Warming] = {}
        self._active: dict[str, EndpointLoad] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = self.active  # bound once
        self.draining = False
        self._clusters: dict[str, Cluster] = {}
        self._resolving = Resolving(self._readdressed, lookup, sleep)
        self.endpoints = self._resolving.endpoints
        self.partitions = Partitions()

    def load(self, cluster: str) -> ClusterLoad:
        found = self._loads.get(cluster)
        if found is None:
            found = self._loads[cluster] = ClusterLoad()
        return found

    def configure(self, clusters: dict[str, Cluster]) -> None:
        """Keep what stays the same; idle connections of pools that are gone close."""
        self._clusters = clusters
        self._resolving.configure(clusters)
        self._warming = {name: warming for name, warming in self._warming.items() if name in clusters}
        for name, cluster in clusters.items():
            if cluster.outlier is not None:
                detector = self._detectors.setdefault(name, OutlierDetector(cluster.outlier))
                detector.settings = cluster.outlier
                detector.keep(key_of(e) for e in self.endpoints(cluster))
            else:
                self._detectors.pop(name, None)
            interval = cluster.breakers.retry_budget_interval
            if interval is not None or name in self._loads:
                load = self.load(name)
                if interval != (load.recent.interval if load.recent is not None else None):
                    load.recent = Recent(interval) if interval is not None else None
            known = self._balancers.get(name)
            if known is None or (known.cluster is not cluster and known.cluster != cluster):
                self._balancers[name] = self._balancer(cluster, self.ejected(name))
        self._retire_gone(clusters)

    def _retire_gone(self, clusters: dict[str, Cluster]) -> None:
        keys = {name: {key_of(e) for e in self.endpoints(one)} for name, one in clusters.items() if one.kind != "ORIGINAL_DST"}
        for key, pool in list(self._pools.items()):
            current = clusters.get(key[0])
            if current is not None:
                pool.target.cluster = current
            if current is None or pool.endpoint not in keys.get(key[0], (pool.endpoint,)):
                del self._pools[key]
                self._http_pools.pop(key[0], None)
                self._retire(pool)

    def _readdressed(self, host: str) -> None:
        """A name has other addresses."""
        for name, cluster in self._clusters.items():
            if host in names_of(cluster):
                if (detector := self._detectors.get(name)) is not None:
                    detector.keep(key_of(e) for e in self.endpoints(cluster))
                self._balancers[name] = self._balancer(cluster, self.ejected(name))
        self._retire_gone(self._clusters)

    def _balancer(self, cluster: Cluster, ejected: frozenset[str]) -> Balancer:
        return Balancer(cluster, ejected, self._warm(cluster), self.endpoints(cluster))

    def _retire(self, pool: Pool) -> None:
        pool.retired = True
        self._retired.add(pool)
        for connection in list(pool.idle):
            connection.abandon()
        pool.forget_when_empty()

    def ejected(self, cluster: str) -> frozenset[str]:
        detector = self._detectors.get(cluster)
        return detector.ejected() if detector is not None else NOBODY

    def choose(self, cluster: Cluster, hash_value: int | None, tried: frozenset[str], tries: int) -> Endpoint | None:
        detector = self._detectors.get(cluster.name)
        ejected = NOBODY
        if detector is not None:
            detector.tick(self.now())
            ejected = detector.ejected()
        balancer = self._balancers.get(cluster.name)
        if (
            balancer is None
            or (balancer.ejected is not ejected and balancer.ejected != ejected)
            or (balancer.cluster is not cluster and balancer.cluster != cluster)
        ):
            balancer = self._balancers[cluster.name] = self._balancer(cluster, ejected)
        return balancer.choose(hash_value, self._under_way, self._rng, tried, tries)

    def _warm(self, cluster: Cluster) -> Warming | None:
        """Who of its endpoints is new, where that matters."""
        if cluster.slow_start is None:
            self._warming.pop(cluster.name, None)
            return None
        warming = self._warming.setdefault(cluster.name, Warming(cluster.slow_start, self.now))
        warming.settings = cluster.slow_start
        warming.keep(key_of(e) for e in self.endpoints(cluster) if e.healthy)
        return warming

    def active(self, key: str) -> int:
        found = self._active.get(key)
        return found.requests if found is not None else 0

    def endpoint_load(self, key: str) -> EndpointLoad:
        """Where one more pool counts its endpoint's requests."""
        found = self._active.get(key)
        if found is None:
            found = self._active[key] = EndpointLoad(key)
        found.pools += 1
        return found

    def _uncounted(self, pool: Pool) -> None:
        """A pool that is forgotten counts no more."""
        pool.active.pools -= 1
        if not pool.active.pools:
            self._active.pop(pool.active.key, None)

    def observe(self, cluster: str, key: str, status: int | None) -> None:
        """Tell the outlier detector of a response (status) or a local failure (None)."""
        detector = self._detectors.get(cluster)
        if detector is None:
            return
        if status is None:
            detector.failed_locally(key, self.now(), self._rng)
        else:
            detector.answered(key, status, self.now(), self._rng)

    def http_pool(self, cluster: Cluster, endpoint: Endpoint, authority: bytes = b"", source: tuple[str, str] | None = None) -> Pool:
        """The pool of an HTTP/1.1 request; found again by address, since hashing a whole target costs as much as parsing a head.

        `authority` is the request's, after rewrites: with auto_sni it is the server name, and no connection serves two of them;
        nor two of `source`, which is what the PROXY protocol tells.
        """
        known = self._http_pools.get(cluster.name)
        if known is None or known.cluster is not cluster:
            known = self._http_pools[cluster.name] = _HttpPools(cluster)
        if not known.plain or source is not None:
            return self._pool_at(known, cluster, endpoint, authority, source)
        pool = known.by_endpoint.get(id(endpoint))
        if pool is None:
            pool = known.by_endpoint[id(endpoint)] = self._pool_at(known, cluster, endpoint, authority, source)
            known.endpoints.append(endpoint)
        return pool

    def _pool_at(self, known: _HttpPools, cluster: Cluster, endpoint: Endpoint, authority: bytes, source: tuple[str, str] | None) -> Pool:
        host = without_port(authority) if cluster.auto_sni or cluster.auto_san_validation else b""
        address = (endpoint.address, endpoint.port, host, source)
        pool = known.by_address.get(address)
        if pool is None:
            pool = known.by_address[address] = self.pool(http_target(cluster, endpoint, host.decode("latin-1"), source))
            pool.address = address
        return pool

    def emptied(self, pool: Pool) -> None:
        """Forget a pool without connections where callers choose the address or the server name, and there is no end to them.

        Envoy forgets the hosts of ORIGINAL_DST clusters likewise, at the cleanup_interval after their last connection.
        """
        cluster = pool.target.cluster
        if pool in self._retired:
            self._retired.discard(pool)
            self._uncounted(pool)
        endless = cluster.kind == "ORIGINAL_DST" or cluster.auto_sni or cluster.auto_san_validation or pool.target.source is not None
        key = (cluster.name, pool.target.pool_key)
        if pool.retired or not endless or self._pools.get(key) is not pool:
            return
        del self._pools[key]
        self._uncounted(pool)
        known = self._http_pools.get(cluster.name)
        if known is not None and pool.address is not None and known.by_address.get(pool.address) is pool:
            del known.by_address[pool.address]

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
            return Announce(connection, lambda: pool.connected(connection))

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
        version, source = target.cluster.proxy_protocol, target.source
        inner = make if not version else lambda: Preface(make(), version, source)
        bind, address = target.cluster.bind_address, target.endpoint.address
        try:
            async with asyncio.timeout(target.cluster.connect_timeout):
                await self.partitions.passable(address)
                original = target.cluster.kind == "ORIGINAL_DST"
                transport = await self._dialer.connect(lambda: self.partitions.first(address, inner()), host, port, bind, original=original)
            if (wanted := target.cluster.keepalive) is not None:
                keep_alive(transport, wanted)
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
        await self._resolving.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
