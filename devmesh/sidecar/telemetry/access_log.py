"""Istio's access log: its default text format word for word (telemetry_logging.go), or the same fields as JSON."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from devmesh.sidecar.message import get_header
from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry.spans import flags_text

Fields = dict[str, str | int | None]


def fields(record: Record) -> Fields:
    """Envoy's command operators of Istio's format, `None` where Envoy prints `-`."""
    headers = record.request_headers
    started = datetime.fromtimestamp(record.start_ns / 1e9, UTC)

    def request(name: bytes) -> str | None:
        value = get_header(headers, name)
        return value.decode("latin-1") if value else None

    service_time = record.upstream_service_time
    return {
        "start_time": started.strftime("%Y-%m-%dT%H:%M:%S.") + f"{started.microsecond // 1000:03d}Z",
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
        "x_forwarded_for": request(b"x-forwarded-for"),
        "user_agent": request(b"user-agent"),
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


TEXT = (
    '[{start_time}] "{method} {path} {protocol}" {response_code} {response_flags} {response_code_details} {connection_termination_details} '
    '"{upstream_transport_failure_reason}" {bytes_received} {bytes_sent} {duration} {upstream_service_time} "{x_forwarded_for}" "{user_agent}" '
    '"{request_id}" "{authority}" "{upstream_host}" {upstream_cluster} {upstream_local_address} {downstream_local_address} '
    "{downstream_remote_address} {requested_server_name} {route_name}\n"
)


def text_line(record: Record) -> str:
    return TEXT.format_map({key: "-" if value is None else value for key, value in fields(record).items()})


def json_line(record: Record) -> bytes:
    return orjson.dumps(fields(record)) + b"\n"
