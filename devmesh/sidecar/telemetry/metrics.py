"""istio_* metrics with Istio's labels (istio.io "Istio Standard Metrics"), own counters rendered at scrape."""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field

from devmesh.sidecar.record import Direction, Flag, Record
from devmesh.sidecar.telemetry import peer
from devmesh.sidecar.telemetry.peer import UNKNOWN, PeerLabels
from devmesh.sidecar.telemetry.spans import flags_text

# Envoy's default histogram buckets; milliseconds and bytes alike.
BUCKETS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000)
Labels = tuple[str, ...]
NAMES = (
    "reporter", "source_workload", "source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster",
    "source_canonical_service", "source_canonical_revision", "destination_workload", "destination_workload_namespace", "destination_principal",
    "destination_app", "destination_version", "destination_cluster", "destination_canonical_service", "destination_canonical_revision",
    "destination_service", "destination_service_name", "destination_service_namespace", "request_protocol", "response_code",
    "grpc_response_status", "response_flags", "connection_security_policy",
)  # fmt: skip


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS, value)] += 1
        self.total += value


@dataclass(frozen=True, slots=True)
class Service:
    """The destination service of a cluster."""

    host: str = "unknown"
    name: str = "unknown"
    namespace: str = "unknown"


class Metrics:
    def __init__(self, own: PeerLabels, principal: str) -> None:
        self._own, self._principal = own, principal or "unknown"
        self.requests: Counter[Labels] = Counter()
        self.durations: dict[Labels, Histogram] = {}
        self.request_bytes: dict[Labels, Histogram] = {}
        self.response_bytes: dict[Labels, Histogram] = {}
        self.tcp: dict[str, Counter[Labels]] = {
            name: Counter() for name in ("sent_bytes", "received_bytes", "connections_opened", "connections_closed")
        }
        self.fault_hits: Counter[str] = Counter()
        self._peers: dict[bytes, PeerLabels] = {}

    def request(self, record: Record, service: Service) -> None:
        labels = self._labels(record, service, "http")
        self.requests[labels] += 1
        self.durations.setdefault(labels, Histogram()).observe(record.duration * 1000)
        self.request_bytes.setdefault(labels, Histogram()).observe(record.bytes_received)
        self.response_bytes.setdefault(labels, Histogram()).observe(record.bytes_sent)
        if record.fault_id and record.flags & (Flag.FI | Flag.DI):
            self.fault_hits[record.fault_id] += 1

    def connection(self, record: Record, service: Service) -> None:
        labels = self._labels(record, service, "tcp")
        self.tcp["connections_opened"][labels] += 1
        self.tcp["connections_closed"][labels] += 1
        self.tcp["sent_bytes"][labels] += record.bytes_sent
        self.tcp["received_bytes"][labels] += record.bytes_received

    def _peer(self, value: bytes) -> PeerLabels:
        if not value:
            return UNKNOWN
        known = self._peers.get(value)
        if known is None:
            if len(self._peers) > 1000:
                self._peers.clear()  # a client may send anything
            known = self._peers[value] = peer.decode(value)
        return known

    def _labels(self, record: Record, service: Service, protocol: str) -> Labels:
        other = self._peer(record.peer_metadata)
        inbound = record.direction is Direction.INBOUND
        source, destination = (other, self._own) if inbound else (self._own, other)
        other_principal = record.peer_principal or "unknown"
        source_id, destination_id = (other_principal, self._principal) if inbound else (self._principal, other_principal)
        security = ("mutual_tls" if record.mtls else "none") if inbound else "unknown"
        if not record.mtls:
            source_id = destination_id = "unknown"
        return (
            "destination" if inbound else "source",
            *_side(source, source_id),
            *_side(destination, destination_id),
            service.host, service.name, service.namespace, protocol, str(record.status) if protocol == "http" else "0", "",
            flags_text(record.flags), security,
        )  # fmt: skip

    def render(self) -> str:
        """The Prometheus text format, version 0.0.4."""
        lines = ["# TYPE istio_requests_total counter"]
        lines += [f"istio_requests_total{{{_text(labels)}}} {count}" for labels, count in self.requests.items()]
        for name, table in (
            ("istio_request_duration_milliseconds", self.durations),
            ("istio_request_bytes", self.request_bytes),
            ("istio_response_bytes", self.response_bytes),
        ):
            lines.append(f"# TYPE {name} histogram")
            for labels, histogram in table.items():
                lines += _histogram_lines(name, _text(labels), histogram)
        for name, counter in self.tcp.items():
            lines.append(f"# TYPE istio_tcp_{name}_total counter")
            lines += [f"istio_tcp_{name}_total{{{_text(labels)}}} {count}" for labels, count in counter.items()]
        lines.append("# TYPE devmesh_fault_hits_total counter")
        lines += [f'devmesh_fault_hits_total{{fault="{_escape(fault)}"}} {count}' for fault, count in self.fault_hits.items()]
        return "\n".join(lines) + "\n"


def _side(labels: PeerLabels, principal: str) -> Labels:
    return (labels.workload, labels.namespace, principal, labels.app, labels.version, labels.cluster, labels.service, labels.version)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(NAMES, labels, strict=True))


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> list[str]:
    lines = []
    running = 0
    for bound, count in zip((*BUCKETS, "+Inf"), histogram.counts, strict=True):
        running += count
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {running}')
    return [*lines, f"{name}_sum{{{labels}}} {histogram.total:g}", f"{name}_count{{{labels}}} {running}"]
