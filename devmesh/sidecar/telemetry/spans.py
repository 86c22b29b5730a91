"""Records -> OTLP spans (opentelemetry.proto.trace.v1), hand-encoded: the SDK costs more than the whole proxy.

Inbound: one SERVER span. Outbound: one CLIENT span for the request and one CLIENT span per attempt below it, so that retries are seen.
Attribute names: OTel stable HTTP semantic conventions, and Istio's tags beside them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from devmesh.sidecar.message import get_header
from devmesh.sidecar.record import AttemptRecord, Direction, Flag, Record, TraceContext
from devmesh.sidecar.telemetry.protobuf import attribute, fixed32, fixed64, message, number

SERVER, CLIENT = 2, 3
ERROR = 2
METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"})


@dataclass(frozen=True, slots=True)
class Workload:
    """Who writes these spans."""

    name: str
    service: str
    version: str
    namespace: str
    node_id: str
    mesh_id: str
    cluster_id: str = "Kubernetes"


# Observed on Envoy 1.40: `URX,UT` and `URX,UC`, although URX is the higher bit.
PRINTED = (Flag.URX, *(flag for flag in Flag if flag and flag is not Flag.URX))


@functools.cache  # few combinations occur, and IntFlag's membership test is slow
def flags_text(flags: Flag) -> str:
    return ",".join(flag.name or "" for flag in PRINTED if flag in flags) or "-"


class SpanEncoder:
    """Static parts are encoded once."""

    def __init__(self, workload: Workload) -> None:
        self._resource = message(
            1,
            b"".join(
                attribute(1, key, value)
                for key, value in (
                    ("service.name", f"{workload.service}.{workload.namespace}"),
                    ("service.version", workload.version),
                    ("service.namespace", workload.namespace),
                    ("service.instance.id", workload.name),
                )
            ),
        )
        self._static = b"".join(
            attribute(9, key, value)
            for key, value in (
                ("component", "proxy"),
                ("node_id", workload.node_id),
                ("istio.canonical_service", workload.service),
                ("istio.canonical_revision", workload.version),
                ("istio.mesh_id", workload.mesh_id),
                ("istio.namespace", workload.namespace),
                ("istio.cluster_id", workload.cluster_id),
            )
        )
        self._scope = message(1, message(1, b"devmesh.sidecar"))

    def export(self, spans: list[bytes]) -> bytes:
        """An ExportTraceServiceRequest."""
        body = self._scope + b"".join(message(2, span) for span in spans)
        return message(1, self._resource + message(2, body))

    def encode(self, record: Record) -> list[bytes]:
        """The spans of one exchange."""
        context = record.trace
        if context is None:
            return []
        end = record.start_ns + int(record.duration * 1e9)
        inbound = record.direction is Direction.INBOUND
        failed = record.status >= 500 or record.status == 0 or (not inbound and record.status >= 400)
        attributes = self._request_attributes(record) + self._response_attributes(record, failed)
        kind = SERVER if inbound else CLIENT
        spans = [
            _span(
                context,
                context.span_id,
                context.parent_id,
                _name(record),
                kind,
                (record.start_ns, end),
                attributes + self._static,
                failed=failed,
            )
        ]
        if not inbound:
            spans += [self._attempt(record, context, attempt, number) for number, attempt in enumerate(record.attempts)]
        return spans

    def _attempt(self, record: Record, context: TraceContext, attempt: AttemptRecord, count: int) -> bytes:
        failed = attempt.status >= 400 or bool(attempt.error)
        address, _, port = attempt.endpoint.rpartition(":")
        attributes = self._request_attributes(record)
        attributes += attribute(9, "upstream_cluster", attempt.cluster) + attribute(9, "network.peer.address", address)
        attributes += attribute(9, "network.peer.port", int(port or 0))
        if attempt.status:
            attributes += attribute(9, "http.response.status_code", attempt.status)
        if count:
            attributes += attribute(9, "http.request.resend_count", count)
        if failed:
            attributes += attribute(9, "error.type", attempt.error or str(attempt.status))
        name = f"router {attempt.cluster} egress"
        times = (attempt.start_ns, attempt.end_ns or attempt.start_ns)
        return _span(context, attempt.span_id, context.span_id, name, CLIENT, times, attributes + self._static, failed=failed)

    def _request_attributes(self, record: Record) -> bytes:
        path, _, query = record.target.decode("latin-1").partition("?")
        host, port = _authority(record)
        pairs: list[tuple[str, str | int]] = [
            ("http.request.method", record.method.decode("latin-1") if record.method in METHODS else "_OTHER"),
            ("server.address", host),
            ("network.protocol.name", "http"),
            ("network.protocol.version", "1.1"),
            ("guid:x-request-id", record.request_id.decode("latin-1")),
        ]
        if port:
            pairs.append(("server.port", port))
        if record.direction is Direction.INBOUND:
            pairs += [
                ("url.path", path),
                ("url.scheme", "https" if record.mtls else "http"),
                ("client.address", record.downstream_remote.rpartition(":")[0]),
            ]
            if query:
                pairs.append(("url.query", query))
        else:
            pairs.append(("url.full", f"http://{record.authority.decode('latin-1')}{record.target.decode('latin-1')}"))
        agent = get_header(record.request_headers, b"user-agent")
        if agent:
            pairs.append(("user_agent.original", agent.decode("latin-1")))
        return b"".join(attribute(9, key, value) for key, value in pairs)

    def _response_attributes(self, record: Record, failed: bool) -> bytes:  # noqa: FBT001 - the span's status
        pairs: list[tuple[str, str | int]] = [("response_flags", flags_text(record.flags)), ("upstream_cluster", record.upstream_cluster)]
        pairs += [("request_size", record.bytes_received), ("response_size", record.bytes_sent)]
        if record.status:
            pairs.append(("http.response.status_code", record.status))
        if record.route_name:
            pairs.append(("devmesh.route", record.route_name))
        if record.route_origin:
            pairs.append(("istio.config", record.route_origin))
        if record.peer_principal:
            pairs.append(("devmesh.peer", record.peer_principal))
        if record.flags & (Flag.FI | Flag.DI):
            pairs.append(("devmesh.fault", record.fault_id or record.route_origin or "fault"))
        if failed:
            pairs.append(("error.type", str(record.status) if record.status else "client_disconnected"))
        return b"".join(attribute(9, key, value) for key, value in pairs)


def _authority(record: Record) -> tuple[str, int]:
    host, colon, port = record.authority.decode("latin-1").rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (record.authority.decode("latin-1"), 0)


def _name(record: Record) -> str:
    """`{method} {target}` of low cardinality: the service's host, never the raw path."""
    return f"{record.method.decode('latin-1')} {_authority(record)[0]}"


def _span(
    context: TraceContext,
    span_id: bytes,
    parent: bytes | None,
    name: str,
    kind: int,
    times: tuple[int, int],
    attributes: bytes,
    *,
    failed: bool,
) -> bytes:
    out = message(1, context.trace_id) + message(2, span_id)
    if context.tracestate:
        out += message(3, context.tracestate)
    if parent is not None:
        out += message(4, parent)
    out += message(5, name.encode()) + number(6, kind) + fixed64(7, times[0]) + fixed64(8, times[1]) + attributes
    if failed:
        out += message(15, number(3, ERROR))
    return out + fixed32(16, 0x101)
