"""Jaeger's API v3: OTLP JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

from devmesh.collector.spans import KINDS, Span, moment

SERVICES, TRACES = "/api/v3/services", "/api/v3/traces"
STATUS_ERROR = 2


def search(service: str, depth: int) -> dict[str, str]:
    """The newest traces of a service, of all times."""
    return {
        "query.service_name": service,
        "query.start_time_min": "1970-01-02T00:00:00Z",
        "query.start_time_max": "2200-01-01T00:00:00Z",
        # api_v3's proto says search_depth, Jaeger 2's HTTP gateway reads num_traces only.
        "query.search_depth": str(depth),
        "query.num_traces": str(depth),
    }


def spans(answer: Mapping[str, Any]) -> Iterator[Span]:
    for group in (answer.get("result") or {}).get("resourceSpans") or []:
        service = _attributes(group.get("resource") or {}).get("service.name", "unknown_service")
        for scoped in group.get("scopeSpans") or []:
            for span in scoped.get("spans") or []:
                yield _span(span, service)


def _span(span: Mapping[str, Any], service: str) -> Span:
    start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
    kind = int(span.get("kind", 0))
    return Span(
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId", ""),
        name=span.get("name", ""),
        service=service,
        kind=KINDS[kind] if kind < len(KINDS) else KINDS[0],
        start=moment(start // 1000),
        duration=max(0, end - start) / 1e9,
        error=(span.get("status") or {}).get("code") == STATUS_ERROR,
        attributes=_attributes(span),
    )


def _attributes(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {item["key"]: _value(item.get("value") or {}) for item in owner.get("attributes") or []}


def _value(value: Mapping[str, Any]) -> Any:
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "arrayValue":
            return [_value(item) for item in content.get("values") or []]
        if kind == "kvlistValue":
            return _attributes({"attributes": content.get("values")})
        return content
    return None
