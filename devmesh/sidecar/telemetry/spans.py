"""Records -> OTLP spans (opentelemetry.proto.trace.v1), hand-encoded: the SDK costs more than the whole proxy.

Inbound: one SERVER span. Outbound: one CLIENT span for the request and one CLIENT span per attempt below it, so that retries are seen.
Attribute names: OTel stable HTTP semantic conventions, and Istio's tags beside them. What many requests share is encoded once.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from devmesh.sidecar.message import get_header
from devmesh.sidecar.record import AttemptRecord, Direction, Flag, Record, TraceContext
from devmesh.sidecar.telemetry.protobuf import ONE_BYTE, attribute, message, number, varint

SERVER: Final = 2
CLIENT: Final = 3
ERROR: Final = 2
METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"})
SHARED: Final = 4096  # combinations kept encoded; a client may invent hosts, so all go when there are more
# Fields of a Span; Span.flags says whether the parent is known to be remote.
TRACE_ID: Final = b"\x0a\x10"
SPAN_ID: Final = b"\x12\x08"
PARENT_ID: Final = b"\x22\x08"
TIMES: Final = struct.Struct("<cQcQ")
FAILED: Final = message(15, number(3, ERROR))
FLAGS: Final = b"\x85\x01"
LOCAL_PARENT: Final = struct.pack("<I", 0x101)
REMOTE_PARENT: Final = struct.pack("<I", 0x301)
ATTRIBUTES: Final = 9
# Observed on Envoy 1.40, which prints them as they were set: `DI,UT`, `URX,UT`, `URX,UC`, `UO,UC`, but `UF,URX` of a TCP connection.
FIRST: Final = (Flag.DI, Flag.URX, Flag.UO)
PRINTED: Final = (*FIRST, *(flag for flag in Flag if flag and flag not in FIRST))


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


@functools.cache  # few combinations occur, and IntFlag's membership test is slow
def flags_text(flags: Flag, *, tcp: bool = False) -> str:
    if tcp and Flag.UF in flags and Flag.URX in flags:
        return "UF,URX"
    return ",".join(flag.name or "" for flag in PRINTED if flag in flags) or "-"


def _text_writer(key: str) -> Callable[[bytes], bytes]:
    """An attribute with this key, short values without general varints: they are most of what is written."""
    head = message(1, key.encode())
    room = 128 - len(head) - 4

    def write(value: bytes) -> bytes:
        size = len(value)
        if size < room:
            return b"J" + ONE_BYTE[len(head) + size + 4] + head + b"\x12" + ONE_BYTE[size + 2] + b"\n" + ONE_BYTE[size] + value
        return message(ATTRIBUTES, head + message(2, message(1, value)))

    return write


def _number_writer(key: str) -> Callable[[int], bytes]:
    head = message(1, key.encode())

    def write(value: int) -> bytes:
        inner = b"\x18" + varint(value)
        return b"J" + ONE_BYTE[len(head) + len(inner) + 2] + head + b"\x12" + ONE_BYTE[len(inner)] + inner

    return write


REQUEST_ID: Final = _text_writer("guid:x-request-id")
URL_FULL: Final = _text_writer("url.full")
URL_PATH: Final = _text_writer("url.path")
URL_QUERY: Final = _text_writer("url.query")
REQUEST_SIZE: Final = _number_writer("request_size")
RESPONSE_SIZE: Final = _number_writer("response_size")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What exchanges of one kind have in common: the encoded name and attributes, and how they ended."""

    head: bytes  # name and kind
    attributes: bytes
    request: bytes  # those of the request alone, for attempts
    failed: bool


class SpanEncoder:
    """Static parts are encoded once."""

    def __init__(self, workload: Workload) -> None:
        resource = (
            ("service.name", f"{workload.service}.{workload.namespace}"),
            ("service.version", workload.version),
            ("service.namespace", workload.namespace),
            ("service.instance.id", workload.name),
        )
        static = (
            ("component", "proxy"),
            ("node_id", workload.node_id),
            ("istio.canonical_service", workload.service),
            ("istio.canonical_revision", workload.version),
            ("istio.mesh_id", workload.mesh_id),
            ("istio.namespace", workload.namespace),
            ("istio.cluster_id", workload.cluster_id),
        )
        self._resource = message(1, b"".join(attribute(1, key, value) for key, value in resource))
        self._static = b"".join(attribute(ATTRIBUTES, key, value) for key, value in static)
        self._scope = message(1, message(1, b"devmesh.sidecar"))
        self._shared: dict[tuple[object, ...], _Shared] = {}
        self._attempts: dict[tuple[object, ...], tuple[bytes, bytes, bool]] = {}

    def export(self, spans: Sequence[bytes | bytearray]) -> bytes:
        """An ExportTraceServiceRequest of what `encode` gave, joined or not; half a megabyte of it is copied once."""
        size = sum(map(len, spans))
        scope = b"\x12" + varint(len(self._scope) + size) + self._scope
        return b"".join((b"\x0a", varint(len(self._resource) + len(scope) + size), self._resource, scope, *spans))

    def encode(self, record: Record) -> list[bytes]:
        """The spans of one exchange, each as a field of its ScopeSpans."""
        context = record.trace
        if context is None:
            return []
        shared = self._of(record)
        own = self._own(record)
        end = record.start_ns + int(record.duration * 1e9)
        sizes = REQUEST_SIZE(record.bytes_received) + RESPONSE_SIZE(record.bytes_sent)
        remote = context.parent_id is not None
        spans = [
            _span(
                context,
                context.span_id,
                context.parent_id,
                shared.head,
                (record.start_ns, end),
                shared.attributes + own + sizes + self._static,
                failed=shared.failed,
                remote=remote,
            )
        ]
        if record.direction is not Direction.INBOUND:
            request = shared.request + own
            spans += [self._attempt(context, one, count, request) for count, one in enumerate(record.attempts) if len(one.span_id) == 8]
        return spans

    def _own(self, record: Record) -> bytes:
        """What every request has for itself."""
        request_id = REQUEST_ID(record.request_id) if record.request_id.isascii() else b""
        if record.direction is not Direction.INBOUND:
            return request_id + URL_FULL(_utf8(b"http://" + record.authority + record.target))
        path, _, query = record.target.partition(b"?")
        return request_id + URL_PATH(_utf8(path)) + (URL_QUERY(_utf8(query)) if query else b"")

    def _of(self, record: Record) -> _Shared:
        key = (
            record.direction is Direction.INBOUND,  # an enum's hash is a call
            record.method,
            record.authority,
            record.status,
            record.flags,
            record.upstream_cluster,
            record.route_name,
            record.route_origin,
            record.route_source,
            record.fault_id,
            record.peer_principal,
            record.mtls,
            record.downstream_remote.rpartition(":")[0],
            get_header(record.request_headers, b"user-agent"),
        )
        found = self._shared.get(key)
        if found is None:
            if len(self._shared) >= SHARED:
                self._shared.clear()
            found = self._shared[key] = _shared(record)
        return found

    def _attempt(self, context: TraceContext, attempt: AttemptRecord, count: int, request: bytes) -> bytes:
        key = (attempt.cluster, attempt.endpoint, attempt.status, attempt.error, count)
        found = self._attempts.get(key)
        if found is None:
            if len(self._attempts) >= SHARED:
                self._attempts.clear()
            name = message(5, f"router {attempt.cluster} egress".encode()) + number(6, CLIENT)
            found = self._attempts[key] = (name, *_attempt_attributes(attempt, count))
        name, extra, failed = found
        times = (attempt.start_ns, attempt.end_ns or attempt.start_ns)
        return _span(context, attempt.span_id, context.span_id, name, times, request + extra + self._static, failed=failed, remote=False)


def _utf8(value: bytes) -> bytes:
    """A protobuf string holds UTF-8; header bytes beyond ASCII are read as Latin-1."""
    return value if value.isascii() else value.decode("latin-1").encode()


def _shared(record: Record) -> _Shared:
    inbound = record.direction is Direction.INBOUND
    # A 4xx is the client's mistake: an error of its span, not of the server's (OTel HTTP spans, "Status").
    failed = record.status >= 500 or record.status == 0 or (not inbound and record.status >= 400)
    request = _encoded(_request_attributes(record))
    head = message(5, _name(record).encode()) + number(6, SERVER if inbound else CLIENT)
    return _Shared(head, request + _encoded(_response_attributes(record, failed=failed)), request, failed)


def _encoded(pairs: list[tuple[str, str | int]]) -> bytes:
    return b"".join(attribute(ATTRIBUTES, key, value) for key, value in pairs)


def _request_attributes(record: Record) -> list[tuple[str, str | int]]:
    host, port = _authority(record)
    known = record.method in METHODS
    pairs: list[tuple[str, str | int]] = [
        ("http.request.method", record.method.decode("latin-1") if known else "_OTHER"),
        ("server.address", host),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "1.1"),
    ]
    if not known:
        pairs.append(("http.request.method_original", record.method.decode("latin-1")))
    if port:
        pairs.append(("server.port", port))
    if record.direction is Direction.INBOUND:
        pairs += [
            ("url.scheme", "https" if record.mtls else "http"),
            ("client.address", record.downstream_remote.rpartition(":")[0]),
        ]
    agent = get_header(record.request_headers, b"user-agent")
    if agent:
        pairs.append(("user_agent.original", agent.decode("latin-1")))
    return pairs


def _response_attributes(record: Record, *, failed: bool) -> list[tuple[str, str | int]]:
    pairs: list[tuple[str, str | int]] = [("response_flags", flags_text(record.flags)), ("upstream_cluster", record.upstream_cluster)]
    if record.status:
        pairs.append(("http.response.status_code", record.status))
    if record.route_name:
        pairs.append(("devmesh.route", record.route_name))
    if record.route_origin:
        pairs.append(("istio.config", record.route_origin))
    if record.route_source:
        pairs.append(("devmesh.source", record.route_source))
    if record.peer_principal:
        pairs.append(("devmesh.peer", record.peer_principal))
    if record.fault_id or record.flags & (Flag.FI | Flag.DI):
        pairs.append(("devmesh.fault", record.fault_id or record.route_origin or "fault"))
    if failed:
        pairs.append(("error.type", str(record.status) if record.status else "client_disconnected"))
    return pairs


def _attempt_attributes(attempt: AttemptRecord, count: int) -> tuple[bytes, bool]:
    failed = attempt.status >= 400 or bool(attempt.error)
    address, _, port = attempt.endpoint.rpartition(":")
    pairs: list[tuple[str, str | int]] = [
        ("upstream_cluster", attempt.cluster),
        ("network.peer.address", address),
        ("network.peer.port", int(port or 0)),
    ]
    if attempt.status:
        pairs.append(("http.response.status_code", attempt.status))
    if count:
        pairs.append(("http.request.resend_count", count))
    if failed:
        pairs.append(("error.type", attempt.error or str(attempt.status)))
    return _encoded(pairs), failed


def _authority(record: Record) -> tuple[str, int]:
    host, colon, port = record.authority.decode("latin-1").rpartition(":")
    return (host, int(port)) if colon and port.isdecimal() and len(port) <= 5 else (record.authority.decode("latin-1"), 0)


def _name(record: Record) -> str:
    """`{method} {target}` of low cardinality: the service's host, never the raw path; `HTTP` for a method that is not known."""
    method = record.method.decode("latin-1") if record.method in METHODS else "HTTP"
    return f"{method} {_authority(record)[0]}".rstrip()


def _span(
    context: TraceContext,
    span_id: bytes,
    parent: bytes | None,
    head: bytes,
    times: tuple[int, int],
    attributes: bytes,
    *,
    failed: bool,
    remote: bool,
) -> bytes:
    span = b"".join(
        (
            TRACE_ID,
            context.trace_id,
            SPAN_ID,
            span_id,
            message(3, context.tracestate) if context.tracestate else b"",
            PARENT_ID + parent if parent is not None else b"",
            head,
            TIMES.pack(b"9", times[0], b"A", times[1]),
            attributes,
            FAILED if failed else b"",
            FLAGS,
            REMOTE_PARENT if remote else LOCAL_PARENT,
        )
    )
    return message(2, span)
