"""Where records go: metrics at once, spans and access log in batches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from devmesh.sidecar.config import Cluster, HttpManager
from devmesh.sidecar.message import Headers
from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry import peer
from devmesh.sidecar.telemetry.access_log import json_line, text_line
from devmesh.sidecar.telemetry.exporter import SpanExporter
from devmesh.sidecar.telemetry.metrics import Metrics, Service
from devmesh.sidecar.telemetry.peer import PeerLabels
from devmesh.sidecar.telemetry.spans import SpanEncoder, Workload

LOG_INTERVAL = 0.1  # seconds; Envoy's file flush interval is 10 s


class Telemetry:
    """The Recorder of a running sidecar."""

    def __init__(
        self, workload: Workload, app: str, spiffe_id: str, otlp_url: str | None, log_file: Path | None, encoding: str = "TEXT"
    ) -> None:
        labels = PeerLabels(workload.name, workload.namespace, app, workload.version, workload.service, workload.cluster_id)
        self.metrics = Metrics(labels, spiffe_id)
        self.exporter = SpanExporter(SpanEncoder(workload), otlp_url) if otlp_url else None
        self._own = Service(f"{workload.service}.{workload.namespace}.svc.cluster.local", workload.service, workload.namespace)
        self._clusters: Callable[[str], Cluster | None] = lambda _: None
        self._line: Callable[[Record], bytes] = json_line if encoding == "JSON" else lambda record: text_line(record).encode()
        self._fd = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log_file is not None else None
        self._pending: list[Record] = []
        self._handle: asyncio.TimerHandle | None = None
        self.peer_metadata: Headers = [
            (b"x-envoy-peer-metadata-id", workload.node_id.encode()),
            (b"x-envoy-peer-metadata", peer.encode(labels)),
        ]

    def bind(self, clusters: Callable[[str], Cluster | None]) -> None:
        """How to find the service behind an upstream cluster."""
        self._clusters = clusters

    def start(self) -> None:
        if self.exporter is not None:
            self.exporter.start()

    def record(self, record: Record, manager: HttpManager) -> None:
        self.metrics.request(record, self._service(record))
        if self.exporter is not None and record.trace is not None and record.trace.sampled:
            self.exporter.offer(record)
        if self._fd is not None and manager.access_log:
            self._log(record)

    def tcp_closed(self, record: Record) -> None:
        self.metrics.connection(record, self._service(record))
        if self._fd is not None:
            self._log(record)

    def _service(self, record: Record) -> Service:
        cluster = self._clusters(record.upstream_cluster)
        if cluster is not None and cluster.service_name:
            return Service(cluster.service, cluster.service_name, cluster.service_namespace)
        return self._own if record.direction.value == "inbound" else Service()

    def _log(self, record: Record) -> None:
        self._pending.append(record)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(LOG_INTERVAL, self._write)

    def _write(self) -> None:
        self._handle = None
        pending, self._pending = self._pending, []
        if self._fd is not None and pending:
            os.write(self._fd, b"".join(map(self._line, pending)))

    async def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._write()
        if self.exporter is not None:
            await self.exporter.stop()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
