"""istio_* metrics with Istio's labels (istio.io "Istio Standard Metrics"), own counters rendered at scrape."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from devmesh import __version__
from devmesh.sidecar.config import Cluster
from devmesh.sidecar.message import get_header
from devmesh.sidecar.record import Direction, Flag, Record
from devmesh.sidecar.telemetry import peer
from devmesh.sidecar.telemetry.peer import UNKNOWN, PeerLabels
from devmesh.sidecar.telemetry.spans import flags_text

# Envoy's default histogram buckets; milliseconds and bytes alike.
BUCKETS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000)
INBOUND: Final = Direction.INBOUND  # an enum's attribute is a search each time
SERIES = 10_000  # label sets; callers choose hosts and metadata, so beyond this all go to one set without a peer
BOUNDS: Final = (-math.inf, *map(float, BUCKETS), math.inf)
INJECTED: Final = Flag.FI | Flag.DI
Labels = tuple[str, ...]
NAMES = (
    "reporter", "source_workload", "source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster",
    "source_canonical_service", "source_canonical_revision", "destination_workload", "destination_workload_namespace", "destination_principal",
    "destination_app", "destination_version", "destination_cluster", "destination_canonical_service", "destination_canonical_revision",
    "destination_service", "destination_service_name", "destination_service_namespace", "request_protocol", "response_code",
    "grpc_response_status", "response_flags", "connection_security_policy",
)  # fmt: skip
TCP_NAMES = tuple(name for name in NAMES if name not in ("response_code", "grpc_response_status"))


class Histogram:
    """Most values fall where the one before did: that bucket is remembered, since to find it for each took a tenth of a request's time."""

    __slots__ = ("_above", "_counts", "_index", "_total", "_upto")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._total = 0.0
        self._index, self._above, self._upto = 0, BOUNDS[0], BOUNDS[1]  # the bucket of the last value

    def observe(self, value: float) -> None:
        if not self._above < value <= self._upto:
            self._find(value)
        self._counts[self._index] += 1
        self._total += value

    def read(self) -> tuple[list[int], float]:
        """How many values each bucket has, the last one being without a bound, and their sum."""
        return self._counts, self._total

    def _find(self, value: float) -> None:
        index = self._index = bisect.bisect_left(BUCKETS, value)
        self._above, self._upto = BOUNDS[index], BOUNDS[index + 1]


@dataclass(slots=True)
class Requests:
    """What is counted for one set of labels."""

    count: int = 0
    durations: Histogram = field(default_factory=Histogram)
    request_bytes: Histogram = field(default_factory=Histogram)
    response_bytes: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Connections:
    opened: int = 0
    closed: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """The destination service of a cluster."""

    host: str = "unknown"
    name: str = "unknown"
    namespace: str = "unknown"


class _Last:
    """Whose request of a cluster was the last one: the next one is mostly its like, and to hash all of a key costs more than to compare it."""

    __slots__ = ("authority", "flags", "grpc", "inbound", "metadata", "mtls", "named", "principal", "series", "status")

    def __init__(self, record: Record, authority: bytes, series: Requests, *, inbound: bool, named: bool, grpc: bool) -> None:
        self.authority, self.series, self.inbound, self.named, self.grpc = authority, series, inbound, named, grpc
        self.status, self.flags, self.mtls = record.status, record.flags, record.mtls
        self.metadata, self.principal = record.peer_metadata, record.peer_principal

    def like(self, record: Record, authority: bytes, *, inbound: bool, named: bool, grpc: bool) -> bool:
        return (
            self.status == record.status
            and self.flags is record.flags
            and self.inbound is inbound
            and self.named is named
            and self.grpc is grpc
            and self.mtls is record.mtls
            and self.authority == authority
            and self.metadata == record.peer_metadata
            and self.principal == record.peer_principal
        )


class Metrics:
    """Counters of one sidecar. `own_service` is what inbound requests are for."""

    def __init__(self, own: PeerLabels, principal: str, own_service: Service) -> None:
        self._own, self._principal, self._own_service = own, principal or "unknown", own_service
        self._requests: dict[Labels, Requests] = {}
        self._connections: dict[Labels, Connections] = {}
        self._known: dict[tuple[object, ...], Requests] = {}
        self._last: dict[str, _Last] = {}  # by cluster
        self._peers: dict[bytes, PeerLabels] = {}
        self.fault_hits: Counter[str] = Counter()
        self.gauges: dict[str, Callable[[], int]] = {}  # other counters of the sidecar, by their whole name

    def request(self, record: Record, cluster: Cluster | None) -> None:
        """Count one exchange; `cluster` is its upstream cluster, for the service's name."""
        named = cluster is not None and bool(cluster.service_name)
        inbound = record.direction is INBOUND
        authority = b"" if named or inbound else record.authority
        grpc = get_header(record.request_headers, b"content-type") == b"application/grpc"
        last = self._last.get(record.upstream_cluster)
        if last is not None and last.like(record, authority, inbound=inbound, named=named, grpc=grpc):
            series = last.series
        else:
            series = self._find(record, cluster, authority, inbound=inbound, named=named, grpc=grpc)
        series.count += 1
        series.durations.observe(record.duration * 1000)
        series.request_bytes.observe(record.bytes_received)
        series.response_bytes.observe(record.bytes_sent)
        if record.fault_id and record.flags & INJECTED:
            self.fault_hits[record.fault_id] += 1

    def _find(self, record: Record, cluster: Cluster | None, authority: bytes, *, inbound: bool, named: bool, grpc: bool) -> Requests:
        key = (
            inbound,
            record.upstream_cluster,
            named,
            authority,
            record.status,
            record.flags,
            record.mtls,
            record.peer_metadata,
            record.peer_principal,
            grpc,
        )
        series = self._known.get(key)
        if series is None:
            series = self._series(key, record, cluster)
        if len(self._last) >= SERIES:
            self._last.clear()
        self._last[record.upstream_cluster] = _Last(record, authority, series, inbound=inbound, named=named, grpc=grpc)
        return series

    def _series(self, key: tuple[object, ...], record: Record, cluster: Cluster | None) -> Requests:
        if len(self._known) >= SERIES:
            self._known.clear()
        protocol = "grpc" if key[-1] else "http"
        labels = self._labels(record, self._peer(record.peer_metadata), self._service(record, cluster), protocol)
        if labels not in self._requests and len(self._requests) >= SERIES:
            labels = self._labels(record, UNKNOWN, Service(), protocol)
        series = self._known[key] = self._requests.setdefault(labels, Requests())
        return series

    def opened(self, record: Record, cluster: Cluster | None) -> None:
        self._connection(record, cluster).opened += 1

    def closed(self, record: Record, cluster: Cluster | None) -> None:
        series = self._connection(record, cluster)
        series.closed += 1
        series.sent += record.bytes_sent
        series.received += record.bytes_received

    def _connection(self, record: Record, cluster: Cluster | None) -> Connections:
        labels = self._labels(record, self._peer(record.peer_metadata), self._service(record, cluster), "tcp")
        if labels not in self._connections and len(self._connections) >= SERIES:
            labels = self._labels(record, UNKNOWN, Service(), "tcp")
        return self._connections.setdefault(labels, Connections())

    def _service(self, record: Record, cluster: Cluster | None) -> Service:
        """Outside the mesh the authority is the destination, and Istio names the passthrough cluster as its service."""
        if cluster is not None and cluster.service_name:
            return Service(cluster.service, cluster.service_name, cluster.service_namespace)
        if record.direction is Direction.INBOUND:
            return self._own_service
        host = record.authority.decode("latin-1").lower() or "unknown"
        name, colon, port = host.rpartition(":")
        host = name if colon and port.isdecimal() else host
        passthrough = record.upstream_cluster in ("PassthroughCluster", "BlackHoleCluster")
        return Service(host, record.upstream_cluster if passthrough else host)

    def _peer(self, value: bytes) -> PeerLabels:
        if not value:
            return UNKNOWN
        known = self._peers.get(value)
        if known is None:
            if len(self._peers) > 1000:
                self._peers.clear()  # a client may send anything
            known = self._peers[value] = peer.decode(value)
        return known

    def _labels(self, record: Record, other: PeerLabels, service: Service, protocol: str) -> Labels:
        inbound = record.direction is Direction.INBOUND
        source, destination = (other, self._own) if inbound else (self._own, other)
        other_principal = record.peer_principal or "unknown"
        source_id, destination_id = (other_principal, self._principal) if inbound else (self._principal, other_principal)
        security = ("mutual_tls" if record.mtls else "none") if inbound else "unknown"
        if not record.mtls:
            source_id = destination_id = "unknown"
        answer = () if protocol == "tcp" else (str(record.status), "")
        return (
            "destination" if inbound else "source",
            *_side(source, source_id),
            *_side(destination, destination_id),
            service.host, service.name, service.namespace, protocol, *answer,
            flags_text(record.flags, tcp=protocol == "tcp"), security,
        )  # fmt: skip

    def render(self) -> str:
        """The Prometheus text format, version 0.0.4."""
        lines = [
            "# TYPE istio_build gauge",
            f'istio_build{{component="proxy",tag="{__version__}"}} 1',
            "# TYPE istio_requests_total counter",
        ]
        requests = [(_text(NAMES, labels), series) for labels, series in self._requests.items()]
        lines += [f"istio_requests_total{{{text}}} {series.count}" for text, series in requests]
        for name, part in (
            ("istio_request_duration_milliseconds", "durations"),
            ("istio_request_bytes", "request_bytes"),
            ("istio_response_bytes", "response_bytes"),
        ):
            lines.append(f"# TYPE {name} histogram")
            for text, series in requests:
                lines += _histogram_lines(name, text, getattr(series, part))
        connections = [(_text(TCP_NAMES, labels), series) for labels, series in self._connections.items()]
        for name, part in (
            ("istio_tcp_connections_opened_total", "opened"),
            ("istio_tcp_connections_closed_total", "closed"),
            ("istio_tcp_sent_bytes_total", "sent"),
            ("istio_tcp_received_bytes_total", "received"),
        ):
            lines.append(f"# TYPE {name} counter")
            lines += [f"{name}{{{text}}} {getattr(series, part)}" for text, series in connections]
        lines.append("# TYPE devmesh_fault_hits_total counter")
        lines += [f'devmesh_fault_hits_total{{fault="{_escape(fault)}"}} {count}' for fault, count in self.fault_hits.items()]
        for name, read in self.gauges.items():
            lines += [f"# TYPE {name} counter", f"{name} {read()}"]
        return "\n".join(lines) + "\n"


def _side(labels: PeerLabels, principal: str) -> Labels:
    return (labels.workload, labels.namespace, principal, labels.app, labels.version, labels.cluster, labels.service, labels.version)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _text(names: Labels, labels: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, labels, strict=True))


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    lines = []
    running = 0
    counts, total = histogram.read()
    for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
        running += count
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {running}')
    # repr keeps every digit: `rate()` over a rounded sum would be wrong
    return [*lines, f"{name}_sum{{{labels}}} {total!r}", f"{name}_count{{{labels}}} {running}"]
