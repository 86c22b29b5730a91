"""The request path, in order: listener -> http1 | tcp -> exchange -> routing -> filters -> upstream -> back, recorded by telemetry.

The only way it changes is `apply`: one reference to an immutable configuration is replaced; what runs finishes on the old one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from devmesh.sidecar.config import Cluster, HttpManager, Listener, ProxyConfig, TcpProxy, WeightedCluster
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.downstream import HttpConnection
from devmesh.sidecar.exchange import Exchange, Stream
from devmesh.sidecar.forwarding import RequestIds
from devmesh.sidecar.listener import Accepted, SocketSpec
from devmesh.sidecar.message import Headers
from devmesh.sidecar.original_dst import original_destination
from devmesh.sidecar.outbound import ProxyRequests
from devmesh.sidecar.record import Direction, Record
from devmesh.sidecar.resolving import Lookup, machine_lookup
from devmesh.sidecar.seam import Handler, as_protocol, factory
from devmesh.sidecar.tcp import TcpConnection
from devmesh.sidecar.timers import Sweep
from devmesh.sidecar.tls import Contexts, Credentials, Identity
from devmesh.sidecar.upstream import Upstreams

log = logging.getLogger(__name__)
EMPTY = ProxyConfig("", {}, {}, {}, {})
UNSEEN = TcpProxy("excluded", (WeightedCluster("PassthroughCluster", 1),), 1, recorded=False)
CALLS_OUT = frozenset({"outbound", "virtual_outbound"})
HUNDREDS: Final = 10  # a status has three digits, and is 0 where there was no answer
INBOUND: Final = Direction.INBOUND  # an enum's attribute is a search each time
OUTBOUND: Final = Direction.OUTBOUND
REDIRECTED = {"virtual_outbound": Direction.OUTBOUND, "virtual_inbound": Direction.INBOUND}


class Recorder(Protocol):
    """Where records go (telemetry)."""

    def record(self, record: Record, manager: HttpManager) -> None: ...
    def tcp_opened(self, record: Record) -> None: ...
    def tcp_closed(self, record: Record, config: TcpProxy) -> None: ...
    def fault_met(self, fault: str) -> None: ...


class NoTelemetry:
    """Keeps nothing; for tests and benchmarks."""

    def record(self, record: Record, manager: HttpManager) -> None: ...

    def tcp_opened(self, record: Record) -> None: ...

    def tcp_closed(self, record: Record, config: TcpProxy) -> None: ...

    def fault_met(self, fault: str) -> None: ...


class Proxy:
    """One sidecar's data plane."""

    def __init__(
        self,
        *,
        spiffe_id: str = "",
        identity: Identity | None = None,
        telemetry: Recorder | None = None,
        dial: dict[str, tuple[str, int]] | None = None,
        peer_metadata: Headers | None = None,
        gateway: bool = False,
        dialer: Dialer | None = None,
        excluded: frozenset[tuple[str, int]] = frozenset(),
        files: Path | None = None,
        now: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        rng: random.Random | None = None,
        lookup: Lookup = machine_lookup,
    ) -> None:
        self.spiffe_id, self.gateway = spiffe_id, gateway
        self.telemetry: Recorder = telemetry or NoTelemetry()
        self.now, self.wall_ns = now, wall_ns
        self.rng = rng or random.Random()  # noqa: S311 - balancing and sampling, no secret
        self.request_ids = RequestIds(self.rng)
        self.peer_metadata: Headers = peer_metadata or []
        self.peer_lines = [name + b": " + value for name, value in self.peer_metadata]
        self.config = EMPTY
        self.contexts = Contexts(identity, self._secret, files)
        self.upstreams = Upstreams(self.contexts, dial or {}, now, self.rng, dialer, lookup)
        self.upstreams.partitions.met = self.telemetry.fault_met
        self.excluded = excluded
        self.sweep = Sweep(now)
        self.exchanges: set[Exchange] = set()
        self.connections: set[HttpConnection | TcpConnection] = set()
        self.undecided: set[asyncio.BaseTransport] = set()  # whose filter chain, TLS or inner protocol is not known yet
        self.draining = False
        self.counters: Counter[str] = Counter()
        self._answered = [0] * HUNDREDS, [0] * HUNDREDS  # outbound, inbound; by the status's hundreds
        self.h2_ports: set[int] = set()
        self.calls_out = False  # the app has sent something through us
        self.noticed: Callable[[], None] = lambda: None  # told when one of these two changes
        self.own_addresses: set[tuple[str, int]] = set()
        self._servers: list[tuple[str, asyncio.Server]] = []
        self._proxy_requests = ProxyRequests(self)

    def _secret(self, name: str) -> Credentials | None:
        secret = self.config.secrets.get(name)
        if secret is None:
            return None
        return Credentials(secret.get("certificate_chain", ""), secret.get("private_key", ""), secret.get("trust_bundle", ""))

    def cluster(self, name: str) -> Cluster | None:
        """Of the configuration in force."""
        return self.config.clusters.get(name)

    def apply(self, config: ProxyConfig) -> None:
        """Put a configuration in force for everything that begins from now on."""
        self.config = config
        self.contexts.forget_files()
        self.upstreams.configure(config.clusters)
        self.upstreams.partitions.apply(config.partitions)

    async def listen(self, specs: list[SocketSpec]) -> None:
        loop = asyncio.get_running_loop()
        for spec in specs:
            self.own_addresses.add((spec.address, spec.port))
            spec.sock.setblocking(False)  # noqa: FBT003 - socket's own signature
            server = await loop.create_server(factory(self._handlers(spec)), sock=spec.sock, backlog=1024)
            self._servers.append((spec.role, server))

    def _handlers(self, spec: SocketSpec) -> Callable[[], Handler]:
        if spec.role == "outbound":
            return lambda: _Outbound(self)
        if spec.role in REDIRECTED:
            return lambda: _Redirected(self, REDIRECTED[spec.role])
        original = spec.original or (spec.address, spec.port)
        return lambda: _Inbound(self, original)

    def inbound_listener(self, port: int) -> Listener | None:
        listeners = self.config.listeners
        if self.gateway:
            return listeners.get(f"0.0.0.0_{port}")
        return listeners.get("virtualInbound") or next((item for item in listeners.values() if item.traffic_direction == "INBOUND"), None)

    def outbound_listener(self, ip: str, port: int) -> Listener | None:
        """The listener of a VIP, else of the port, else the one that takes everything."""
        listeners = self.config.listeners
        return listeners.get(f"{ip}_{port}") or listeners.get(f"0.0.0.0_{port}") or listeners.get("virtualOutbound")

    def proxy_requests(self) -> ProxyRequests:
        return self._proxy_requests

    def as_tcp(self, manager: HttpManager, original: tuple[str, int], direction: Direction) -> TcpProxy:
        """An h2 connection on an HTTP chain goes as bytes to the cluster of its original destination."""
        port = original[1]
        if direction is Direction.INBOUND:
            name = f"inbound|{port}||"
        else:
            hosts = [h for h, ips in self.config.names.items() if original[0] in ips]
            name = next((c for h in hosts if (c := f"outbound|{port}||{h}") in self.config.clusters), "PassthroughCluster")
        return TcpProxy(manager.stat_prefix, (WeightedCluster(name, 1),), 1, access_log=manager.access_log)

    def saw_h2(self, port: int) -> None:
        if port not in self.h2_ports:
            self.h2_ports.add(port)
            self.noticed()

    def _notice_call(self, record: Record) -> None:
        if not self.calls_out and record.direction is OUTBOUND:
            self.calls_out = True
            self.noticed()

    def count(self, name: str) -> None:
        self.counters[name] += 1

    def record(self, record: Record, manager: HttpManager) -> None:
        answered = self._answered[1] if record.direction is INBOUND else self._answered[0]
        answered[min(record.status // 100, HUNDREDS - 1)] += 1
        self.telemetry.record(record, manager)
        self._notice_call(record)

    def tcp_opened(self, record: Record) -> None:
        self.telemetry.tcp_opened(record)
        self._notice_call(record)

    def tcp_closed(self, record: Record, config: TcpProxy) -> None:
        self.counters[f"tcp.{record.direction.value}.cx_total"] += 1
        self.telemetry.tcp_closed(record, config)

    def stats(self) -> dict[str, int]:
        return dict(self.counters + self._of_requests())

    def _of_requests(self) -> Counter[str]:
        counters: Counter[str] = Counter()
        for direction, answered in zip((Direction.OUTBOUND, Direction.INBOUND), self._answered, strict=True):
            for hundreds, count in enumerate(answered):
                if count:
                    counters[f"http.{direction.value}.rq_{hundreds}xx"] += count
                    counters[f"http.{direction.value}.rq_total"] += count
        return counters

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - Envoy's --drain-time-s, spent waiting on purpose
        """Accept nothing new from outside, close idle connections, let what is in flight end within `timeout` seconds.

        As pilot-agent has Envoy do it (`drain_listeners?inboundonly`).
        """
        self.draining = True
        for role, server in self._servers:
            if role not in CALLS_OUT:  # an app that is still answering somebody may have to call somebody
                server.close()
        for connection in [c for c in self.connections if c.idle()]:
            connection.close()
        self._close_undecided()
        deadline = self.now() + timeout
        while self.exchanges and self.now() < deadline:  # noqa: ASYNC110 - bounded, only while draining
            await asyncio.sleep(0.02)
        await self.close()

    def _close_undecided(self) -> None:
        """Nothing of a request has been taken from these."""
        for transport in list(self.undecided):
            transport.close()

    async def close(self) -> None:
        for _, server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close()
        self._close_undecided()
        self.sweep.stop()
        await self._proxy_requests.close()
        await self.upstreams.close()


class _Inbound(Handler):
    """The first moment of a connection to one of the workload's own ports."""

    def __init__(self, proxy: Proxy, original: tuple[str, int]) -> None:
        self._proxy, self._original = proxy, original

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._proxy.inbound_listener(self._original[1])
        if listener is None:
            transport.close()  # no configuration yet: nobody may be let through
            return
        direction = Direction.OUTBOUND if self._proxy.gateway else Direction.INBOUND  # a gateway is the client of what it routes to
        accepted = Accepted(self._proxy, listener, direction, self._original)
        transport.set_protocol(as_protocol(accepted))
        accepted.connection_made(transport)


class _Redirected(Handler):
    """The first moment of a connection that the kernel redirected to 15001 or 15006."""

    def __init__(self, proxy: Proxy, direction: Direction) -> None:
        self._proxy, self._direction = proxy, direction

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        original = original_destination(sock)
        if original is not None and original[1] == sock.getsockname()[1]:
            original = None  # where the kernel tracks connections, one that was not redirected has an original destination too: us
        listener = self._listener(original) if original is not None else None
        if original is None or listener is None:
            # Nobody's destination, or no configuration yet: nothing may be let through. Istio's listeners do the same by their blackhole chains.
            log.info("a connection to the %s listener itself is refused", self._direction.value)
            transport.abort()  # type: ignore[attr-defined] # a socket transport
            return
        if original in self._proxy.excluded:
            stream = Stream(self._direction, original, "", f"{original[0]}:{original[1]}")
            protocol: Handler = TcpConnection(self._proxy, UNSEEN, stream)
        else:
            protocol = Accepted(self._proxy, listener, self._direction, original)
        transport.set_protocol(as_protocol(protocol))
        protocol.connection_made(transport)

    def _listener(self, original: tuple[str, int]) -> Listener | None:
        if self._direction is Direction.INBOUND:
            return self._proxy.inbound_listener(original[1])
        return self._proxy.outbound_listener(*original)


class _Outbound(Handler):
    """The first moment of a connection from the app."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        proxy = self._proxy
        sock = transport.get_extra_info("socket")
        original = original_destination(sock)
        own = tuple(sock.getsockname()[:2])
        protocol: Handler
        if original is None or original == own or original in proxy.own_addresses:
            protocol = proxy.proxy_requests().connection(transport)
        else:
            listener = proxy.outbound_listener(*original)
            if listener is None:
                transport.close()
                return
            protocol = Accepted(proxy, listener, Direction.OUTBOUND, original)
        transport.set_protocol(as_protocol(protocol))
        protocol.connection_made(transport)
