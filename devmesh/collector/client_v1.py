"""Jaeger's API v1, for servers that serve no v3: kind and status are tags there, a parent is a reference, times are microseconds."""

from collections.abc import Iterator, Mapping
from typing import Any

from devmesh.collector.spans import KINDS, Span, moment

SERVICES, TRACES = "/api/services", "/api/traces"
# What Jaeger makes of OTLP's own fields; no attribute of the span.
MADE = ("span.kind", "error", "otel.status_code", "otel.status_description", "otel.scope.name", "otel.scope.version", "w3c.tracestate")
END_OF_TIME = 7_258_118_400_000_000  # 2200-01-01


def search(service: str, depth: int) -> dict[str, str]:
    """The newest traces of a service, of all times."""
    return {"service": service, "start": "0", "end": str(END_OF_TIME), "limit": str(depth)}


def spans(answer: Mapping[str, Any]) -> Iterator[Span]:
    for trace in answer.get("data") or []:
        services = {key: process.get("serviceName", "") for key, process in (trace.get("processes") or {}).items()}
        for span in trace.get("spans") or []:
            yield _span(span, services.get(span.get("processID", ""), "unknown_service"))


def _span(span: Mapping[str, Any], service: str) -> Span:
    tags = {tag["key"]: _value(tag) for tag in span.get("tags") or []}
    kind = tags.get("span.kind")
    return Span(
        trace_id=span["traceID"].zfill(32),
        span_id=span["spanID"].zfill(16),
        parent_id=_parent(span),
        name=span.get("operationName", ""),
        service=service,
        kind=kind if kind in KINDS else KINDS[0],
        start=moment(int(span.get("startTime", 0))),
        duration=int(span.get("duration", 0)) / 1e6,
        # Clients of OpenTracing wrote the tag as text.
        error=tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR",
        attributes={key: value for key, value in tags.items() if key not in MADE},
    )


def _parent(span: Mapping[str, Any]) -> str:
    own = [one for one in span.get("references") or [] if one.get("traceID") == span["traceID"]]
    parents = [one["spanID"] for one in own if one.get("refType") == "CHILD_OF"] or [one["spanID"] for one in own]
    return parents[0].zfill(16) if parents else ""


def _value(tag: Mapping[str, Any]) -> Any:
    # An integer that JavaScript would round comes as text.
    return int(tag["value"]) if tag.get("type") == "int64" else tag.get("value")
