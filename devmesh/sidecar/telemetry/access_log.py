"""Istio's access log: its default text format word for word (telemetry_logging.go), or the same fields as JSON, as Envoy writes them.

What clients sent is bytes, and stays the same bytes in the text.
"""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from typing import Final

import orjson

from devmesh.sidecar.message import get_header
from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry.spans import flags_text

Fields = dict[str, str | int | None]  # text as latin-1: each character is a byte of the line


@functools.lru_cache(maxsize=16)  # many requests share a second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def start_time(start_ns: int) -> str:
    """%START_TIME%: milliseconds, cut and not rounded."""
    seconds, rest = divmod(start_ns, 1_000_000_000)
    return f"{_second(seconds)}{rest // 1_000_000:03d}Z"


def _header(record: Record, name: bytes) -> str | None:
    value = get_header(record.request_headers, name)
    return value.decode("latin-1") if value is not None else None


def _named(name: str) -> str | None:
    """What people named, in whatever language."""
    return (name if name.isascii() else name.encode().decode("latin-1")) or None


def fields(record: Record) -> Fields:
    """Envoy's command operators of Istio's format, `None` where Envoy prints `-`."""
    service_time = record.upstream_service_time
    return {
        "start_time": start_time(record.start_ns),
        "method": record.method.decode("latin-1") or None,
        "path": record.target.decode("latin-1") or None,
        "protocol": record.protocol.decode() if record.protocol != b"TCP" else None,
        "response_code": record.status,
        "response_flags": flags_text(record.flags, tcp=record.protocol == b"TCP"),
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
        "authority": record.authority.decode("latin-1") or _header(record, b"host"),
        "upstream_host": record.upstream_host or None,
        "upstream_cluster": _named(record.upstream_cluster),
        "upstream_local_address": record.upstream_local or None,
        "downstream_local_address": record.downstream_local or None,
        "downstream_remote_address": record.downstream_remote or None,
        "requested_server_name": _named(record.requested_server_name),
        "route_name": _named(record.route_name),
    }


TEXT: Final = '[%s] "%s %s %s" %s %s %s %s "%s" %s %s %s %s "%s" "%s" "%s" "%s" "%s" %s %s %s %s %s %s\n'  # the fields in their order


def text_line(record: Record) -> bytes:
    return (TEXT % tuple("-" if value is None else value for value in fields(record).values())).encode("latin-1", "replace")


def json_line(record: Record) -> bytes:
    """Keys in the alphabet's order; UTF-8 stays, in a value that is none each byte is a code point (Envoy's JSON formatter)."""
    given = fields(record)
    line = orjson.dumps(given, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    if line.isascii():
        return line
    found: dict[str, str | int | orjson.Fragment | None] = {
        key: _unicode(value) if isinstance(value, str) and not value.isascii() else value for key, value in given.items()
    }
    return orjson.dumps(found, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _unicode(value: str) -> str | orjson.Fragment:
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return orjson.Fragment(json.dumps(value))
