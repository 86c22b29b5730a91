"""Istio's access log: its default text format word for word (telemetry_logging.go), or the same fields as JSON."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

import orjson

from devmesh.sidecar.message import get_header
from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry.spans import flags_text

Fields = dict[str, str | int | None]


@functools.lru_cache(maxsize=16)  # many requests share a second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def start_time(start_ns: int) -> str:
    """%START_TIME%: milliseconds, cut and not rounded."""
    seconds, rest = divmod(start_ns, 1_000_000_000)
    return f"{_second(seconds)}{rest // 1_000_000:03d}Z"


def _header(record: Record, name: bytes) -> str | None:
    value = get_header(record.request_headers, name)
    return value.decode("latin-1") if value else None


def fields(record: Record) -> Fields:
    """Envoy's command operators of Istio's format, `None` where Envoy prints `-`."""
    service_time = record.upstream_service_time
    return {
        "start_time": start_time(record.start_ns),
        "method": record.method.decode("latin-1") or None,
        "path": record.target.decode("latin-1") or None,
        "protocol": record.protocol.decode() if record.method else None,
        "response_code": record.status,
        "response_flags": flags_text(record.flags),
        "response_code_details": record.details or None,
        "connection_termination_details": record.termination_details or None,
        "upstream_transport_failure_reason": record.transport_failure or None,
        "bytes_received": record.bytes_received,
        "bytes_sent": record.bytes_sent,
        "duration": int(record.duration * 1000),
        "upstream_service_time": str(int(service_time * 1000)) if service_time is not None else None,
        "x_forwarded_for": _header(record, b"x-forwarded-for"),
        "user_agent": _header(record, b"user-agent"),
        "request_id": record.request_id.decode("latin-1") or None,
        "authority": record.authority.decode("latin-1") or None,
        "upstream_host": record.upstream_host or None,
        "upstream_cluster": record.upstream_cluster or None,
        "upstream_local_address": record.upstream_local or None,
        "downstream_local_address": record.downstream_local or None,
        "downstream_remote_address": record.downstream_remote or None,
        "requested_server_name": record.requested_server_name or None,
        "route_name": record.route_name or None,
    }


TEXT = '[%s] "%s %s %s" %s %s %s %s "%s" %s %s %s %s "%s" "%s" "%s" "%s" "%s" %s %s %s %s %s %s\n'  # the fields in their order


def text_line(record: Record) -> str:
    return TEXT % tuple("-" if value is None else value for value in fields(record).values())


def json_line(record: Record) -> bytes:
    return orjson.dumps(fields(record)) + b"\n"
