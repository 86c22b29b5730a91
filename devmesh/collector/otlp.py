"""OTLP/HTTP (opentelemetry.io/docs/specs/otlp): protobuf or JSON into stored spans, JSON out."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from devmesh.collector.store import ERROR, StoredSpan

Json = dict[str, Any]


class BadTraces(Exception):
    """A body that is no ExportTraceServiceRequest."""


def parse(body: bytes, content_type: str) -> Json:
    """The request as OTLP-JSON with hex ids. Raises BadTraces."""
    try:
        if content_type == "application/json":
            value: Json = orjson.loads(body)
            if not isinstance(value, dict):
                raise BadTraces("not an object")
            return value
        return _from_protobuf(body)
    except ValueError as error:
        raise BadTraces(str(error)) from error


def _from_protobuf(body: bytes) -> Json:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - 60 ms that readiness need not wait for
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: PLC0415 - as above

    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise BadTraces(str(error)) from error
    value: Json = MessageToDict(request, use_integers_for_enums=True)
    for span in _raw_spans(value):
        # Protobuf's JSON form has bytes as base64; OTLP's own has ids in hex.
        for key in ("traceId", "spanId", "parentSpanId"):
            if key in span:
                span[key] = base64.b64decode(span[key]).hex()
    return value


def _raw_spans(value: Mapping[str, Any]) -> Iterator[Json]:
    for resource in value.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            yield from scope.get("spans", ())


def spans(value: Mapping[str, Any]) -> Iterator[StoredSpan]:
    """Raises BadTraces for a span without ids or times."""
    try:
        for resource in value.get("resourceSpans", ()):
            described = resource.get("resource", {})
            service = _attributes(described).get("service.name", "unknown_service")
            for scope in resource.get("scopeSpans", ()):
                for span in scope.get("spans", ()):
                    yield _span(span, service, described, scope.get("scope", {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadTraces(f"malformed span: {error}") from error


def _span(span: Json, service: str, resource: Json, scope: Json) -> StoredSpan:
    trace_id, span_id = str(span["traceId"]).lower(), str(span["spanId"]).lower()
    if len(trace_id) != 32 or len(span_id) != 16:
        raise ValueError("ids must be 16 and 8 bytes in hex")
    return StoredSpan(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=str(span.get("parentSpanId", "")).lower(),
        name=str(span.get("name", "")),
        kind=int(span.get("kind", 0)),
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        error=int(span.get("status", {}).get("code", 0)) == ERROR,
        service=service,
        attributes=_attributes(span),
        resource=resource,
        scope=scope,
        span=span,
    )


def _attributes(owner: Mapping[str, Any]) -> dict[str, str]:
    return {one["key"]: text(one.get("value", {})) for one in owner.get("attributes", ())}


def text(value: Mapping[str, Any]) -> str:
    """An AnyValue as Jaeger's tags show it."""
    for key in ("stringValue", "intValue", "doubleValue"):
        if key in value:
            return str(value[key])
    if "boolValue" in value:
        return "true" if value["boolValue"] else "false"
    return orjson.dumps(value).decode()


def render(found: list[StoredSpan]) -> Json:
    """OTLP-JSON TracesData, one resourceSpans a service and resource."""
    groups: dict[bytes, list[StoredSpan]] = {}
    for span in found:
        groups.setdefault(orjson.dumps([span.resource, span.scope]), []).append(span)
    return {
        "resourceSpans": [
            {"resource": group[0].resource, "scopeSpans": [{"scope": group[0].scope, "spans": [one.span for one in group]}]}
            for group in groups.values()
        ]
    }
