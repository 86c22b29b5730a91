"""Traces in the words of Jaeger's API v1 (internal/uimodel), translated from OTLP as Jaeger does (pkg/translator/jaeger).

Times are microseconds; kind, status and scope are tags; tags are sorted by key, type and value; what a parent or a link says is a reference.
"""

import base64
import math
from collections.abc import Iterable
from typing import Any

import orjson

from devmesh.collector.store import StoredSpan, StoredTrace

Json = dict[str, Any]
KIND_TAGS = (None, "internal", "server", "client", "producer", "consumer")
STATUS_TAGS = (None, "OK", "ERROR")
TYPES = ("string", "bool", "int64", "float64", "binary")  # in the order in which Jaeger sorts them
# Beyond these a JavaScript client would round.
SAFE_INTEGER = 2**53 - 1
# Go's encoding/json escapes them in nested values.
HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def trace_json(trace: StoredTrace) -> Json:
    """A trace, its spans by start."""
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope  # noqa: PLC0415 - see otlp's docstring
    from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: PLC0415 - as above

    processes: dict[tuple[str, bytes], str] = {}
    spans = []
    for stored in sorted(trace.spans.values(), key=lambda span: span.start):
        process = processes.setdefault((stored.service, stored.resource), f"p{len(processes) + 1}")
        spans.append(_span(stored, Span.FromString(stored.body), InstrumentationScope.FromString(stored.scope)) | {"processID": process})
    return {
        "traceID": short_trace_id(trace.trace_id),
        "spans": spans,
        "processes": {name: _process(service, resource) for (service, resource), name in processes.items()},
        "warnings": None,
    }


def short_trace_id(trace_id: str) -> str:
    """Jaeger writes a 64-bit id as such."""
    return trace_id.removeprefix("0" * 16)


def _span(stored: StoredSpan, span: Any, scope: Any) -> Json:
    return {
        "traceID": short_trace_id(stored.trace_id),
        "spanID": stored.span_id,
        "operationName": stored.name,
        "references": _references(stored, span.links),
        "startTime": stored.start // 1000,
        "duration": (stored.end - stored.start) // 1000,
        "tags": _sorted([*_scope_tags(scope), *map(_tag, span.attributes), *_own_tags(span)]),
        "logs": [{"timestamp": event.time_unix_nano // 1000, "fields": _fields(event)} for event in span.events],
        "warnings": None,
    }


def _process(service: str, resource: bytes) -> Json:
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource  # noqa: PLC0415 - see otlp's docstring

    attributes = Resource.FromString(resource).attributes
    return {"serviceName": service, "tags": _sorted(_tag(one) for one in attributes if one.key != "service.name")}


def _references(stored: StoredSpan, links: Iterable[Any]) -> list[Json]:
    """The parent first; a link to the parent says what kind of reference that is."""
    references = {}
    if stored.parent_id:
        references[stored.trace_id, stored.parent_id] = "CHILD_OF"
    for link in links:
        words = {one.key: one.value.string_value for one in link.attributes}
        kind = "CHILD_OF" if words.get("opentracing.ref_type") == "child_of" else "FOLLOWS_FROM"
        references[link.trace_id.hex(), link.span_id.hex()] = kind
    return [{"refType": kind, "traceID": short_trace_id(trace), "spanID": span} for (trace, span), kind in references.items()]


def _scope_tags(scope: Any) -> Iterable[Json]:
    for name, text in (("name", scope.name), ("version", scope.version)):
        if text:
            yield _text(f"otel.scope.{name}", text)


def _own_tags(span: Any) -> Iterable[Json]:
    """What OTLP has fields for and Jaeger's model has not."""
    kind = KIND_TAGS[span.kind] if span.kind < len(KIND_TAGS) else None
    code = STATUS_TAGS[span.status.code] if span.status.code < len(STATUS_TAGS) else None
    found = {
        "span.kind": kind,
        "otel.status_code": code,
        "otel.status_description": span.status.message,
        "w3c.tracestate": span.trace_state,
    }
    yield from (_text(key, text) for key, text in found.items() if text)
    if code == "ERROR":
        yield {"key": "error", "type": "bool", "value": True}


def _fields(event: Any) -> list[Json]:
    fields = list(map(_tag, event.attributes))
    if event.name and not any(field["key"] == "event" for field in fields):
        fields.append(_text("event", event.name))
    named = [field for field in fields if field["key"] == "event" and field["type"] == "string"][:1]
    return named + _sorted(field for field in fields if field not in named)


def _sorted(tags: Iterable[Json]) -> list[Json]:
    return sorted(tags, key=lambda tag: (tag["key"], TYPES.index(tag["type"]), str(tag["value"])))


def _text(key: str, text: str) -> Json:
    return {"key": key, "type": "string", "value": text}


def _tag(attribute: Any) -> Json:
    kind, value = attribute.value.WhichOneof("value"), _plain(attribute.value)
    if kind == "bool_value":
        return {"key": attribute.key, "type": "bool", "value": value}
    if kind == "int_value":
        return {"key": attribute.key, "type": "int64", "value": value if abs(value) <= SAFE_INTEGER else str(value)}
    if kind == "double_value":
        return {"key": attribute.key, "type": "float64", "value": value if math.isfinite(value) else str(value)}
    if kind == "bytes_value":
        return {"key": attribute.key, "type": "binary", "value": value}
    return _text(attribute.key, value if isinstance(value, str) else _nested(value))


def _plain(value: Any) -> Any:
    """An AnyValue as JSON has it; None, as text empty, when it has none."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: _plain(item.value) for item in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind) if kind else ""


def _nested(value: Any) -> str:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return "".join(HTML.get(letter, letter) for letter in text)
