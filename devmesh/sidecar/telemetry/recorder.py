"""Where records go: counted at once, spans and access log in batches."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devmesh.sidecar.config import Cluster, HttpManager, TcpProxy
from devmesh.sidecar.message import Headers
from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry import peer
from devmesh.sidecar.telemetry.access_log import json_line, text_line
from devmesh.sidecar.telemetry.exporter import SpanExporter
from devmesh.sidecar.telemetry.metrics import Metrics, Service
from devmesh.sidecar.telemetry.peer import PeerLabels
from devmesh.sidecar.telemetry.spans import SpanEncoder, Workload

log = logging.getLogger(__name__)
LOG_INTERVAL = 0.1  # seconds; Envoy's file flush interval is 10 s
LOG_BUFFER = 16 * 1024  # bytes written at once, some thirty lines
SLICE: Final = 16  # lines made in one loop turn, so that none is long
STDOUT = Path("/dev/stdout")  # Istio's accessLogFile


class Telemetry:
    """The Recorder of a running sidecar."""

    def __init__(
        self, workload: Workload, app: str, spiffe_id: str, otlp_url: str | None, log_file: Path | None, encoding: str = "TEXT"
    ) -> None:
        labels = PeerLabels(workload.name, workload.namespace, app, workload.version, workload.service, workload.cluster_id)
        own = Service(f"{workload.service}.{workload.namespace}.svc.cluster.local", workload.service, workload.namespace)
        self.metrics = Metrics(labels, spiffe_id, own)
        self.exporter = SpanExporter(SpanEncoder(workload), otlp_url) if otlp_url else None
        self._clusters: Callable[[str], Cluster | None] = lambda _: None
        self._line: Callable[[Record], bytes] = json_line if encoding == "JSON" else text_line
        self._fd = _open(log_file)
        self._pending: deque[Record] = deque()
        self._made = bytearray()  # lines, not written yet
        self._made_lines = 0
        self._handle: asyncio.Handle | None = None  # the next turn
        self._flush: asyncio.TimerHandle | None = None
        self.lines_lost = 0
        self.peer_metadata: Headers = [
            (b"x-envoy-peer-metadata-id", workload.node_id.encode()),
            (b"x-envoy-peer-metadata", peer.encode(labels)),
        ]
        self.metrics.gauges["devmesh_access_log_lines_lost_total"] = lambda: self.lines_lost
        if self.exporter is not None:
            exporter = self.exporter
            self.metrics.gauges["devmesh_spans_sent_total"] = lambda: exporter.sent
            self.metrics.gauges["devmesh_spans_dropped_total"] = lambda: exporter.dropped

    def bind(self, clusters: Callable[[str], Cluster | None]) -> None:
        """How to find the service behind an upstream cluster."""
        self._clusters = clusters

    def start(self) -> None:
        if self.exporter is not None:
            self.exporter.start()

    def record(self, record: Record, manager: HttpManager) -> None:
        self.metrics.request(record, self._clusters(record.upstream_cluster))
        if self.exporter is not None and record.trace is not None and record.trace.sampled:
            self.exporter.offer(record)
        if self._fd is not None and manager.access_log:
            self._log(record)

    def tcp_opened(self, record: Record) -> None:
        self.metrics.opened(record, self._clusters(record.upstream_cluster))

    def tcp_closed(self, record: Record, config: TcpProxy) -> None:
        self.metrics.closed(record, self._clusters(record.upstream_cluster))
        if self._fd is not None and config.access_log:
            self._log(record)

    def fault_met(self, fault: str) -> None:
        """Something met a fault that no record tells of when it does: a partition."""
        self.metrics.fault_hits[fault] += 1

    def render_metrics(self) -> str:
        return self.metrics.render()

    def _log(self, record: Record) -> None:
        """Its line is made in the loop's next turn, behind the answer; as for spans, records do not wait for a full buffer."""
        self._pending.append(record)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._make(SLICE)
        self._handle = loop.call_soon(self._turn) if self._pending else None
        if len(self._made) >= LOG_BUFFER:
            self._write()
        elif self._flush is None:
            self._flush = loop.call_later(LOG_INTERVAL, self._write)

    def _make(self, most: int) -> None:
        for _ in range(min(most, len(self._pending))):
            self._made += self._line(self._pending.popleft())
            self._made_lines += 1

    def _write(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        made, lines = self._made, self._made_lines
        self._made, self._made_lines = bytearray(), 0
        if self._fd is None or not made:
            return
        try:
            os.write(self._fd, made)
        except OSError as error:  # a full disk must not stop the traffic
            if not self.lines_lost:
                log.warning("the access log cannot be written: %s", error)
            self.lines_lost += lines

    async def stop(self) -> None:
        """Write and send what is left."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._make(len(self._pending))
        self._write()
        if self.exporter is not None:
            await self.exporter.stop()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _open(log_file: Path | None) -> int | None:
    if log_file is None:
        return None
    if log_file == STDOUT:
        return os.dup(1)  # opening the device again fails where stdout is a socket
    return os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
