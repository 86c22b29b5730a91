"""Traces for the command line, from Jaeger's API v3: devmesh's collector and a real Jaeger answer alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from devmesh.errors import DevmeshError

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUS_ERROR = 2
TIMEOUT = aiohttp.ClientTimeout(total=15)
# Whether a trace failed is known only once it is here.
ERRORS_DEPTH = 500


@dataclass(frozen=True, slots=True)
class Span:
    """A span; `start` is aware, `duration` in seconds, `kind` one of KINDS."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    kind: str
    start: datetime
    duration: float
    error: bool
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace in one line; `start` is aware, `duration` in seconds, `root` is `service: operation`."""

    trace_id: str
    start: datetime
    duration: float
    services: list[str]
    spans: int
    error: bool
    root: str


async def list_traces(url: str, service: str | None = None, limit: int = 20, errors_only: bool = False) -> list[TraceSummary]:  # noqa: FBT001, FBT002 - the CLI's contract
    """The newest traces first; raises DevmeshError when nothing answers at `url`."""
    now = datetime.now(UTC)
    depth = str(max(limit, ERRORS_DEPTH) if errors_only else limit)
    window = {
        "query.start_time_min": "1970-01-02T00:00:00Z",
        "query.start_time_max": (now + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        # api_v3's proto says search_depth, Jaeger 2's HTTP gateway reads num_traces only.
        "query.search_depth": depth,
        "query.num_traces": depth,
    }
    traces: dict[str, dict[str, Span]] = {}
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        services = [service] if service else (await _get(session, url, "/api/v3/services")).get("services", [])
        for one in services:
            for span in _spans(await _get(session, url, "/api/v3/traces", {**window, "query.service_name": one})):
                traces.setdefault(span.trace_id, {})[span.span_id] = span
    found = sorted((_summary(list(spans.values())) for spans in traces.values()), key=lambda trace: trace.start, reverse=True)
    return [trace for trace in found if trace.error or not errors_only][:limit]


async def get_trace(url: str, trace_id: str) -> list[Span]:
    """All spans of a trace by start; raises DevmeshError when it is not known or nothing answers."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        spans = list(_spans(await _get(session, url, f"/api/v3/traces/{trace_id}")))
    if not spans:
        raise DevmeshError(f"no trace {trace_id}")
    return sorted(spans, key=lambda span: span.start)


async def _get(session: aiohttp.ClientSession, url: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
    try:
        async with session.get(url.rstrip("/") + path, params=query) as response:
            # Jaeger says text/plain; 404 is its word for "none".
            body = await response.json(content_type=None)
            if response.status not in (200, 404):
                raise DevmeshError(f"{url}{path}: {response.status} {(body.get('error') or {}).get('message', '')}")
            return body if response.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise DevmeshError(f"no trace store answers at {url}: {error}", hint="devmesh status") from error


def _spans(answer: Mapping[str, Any]) -> Iterator[Span]:
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
        start=datetime.fromtimestamp(start // 10**9, UTC) + timedelta(microseconds=start % 10**9 // 1000),
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


def _summary(spans: list[Span]) -> TraceSummary:
    ids = {span.span_id for span in spans}
    root = min(spans, key=lambda span: (span.parent_id in ids, bool(span.parent_id), span.start))
    start = min(span.start for span in spans)
    end = max(span.start + timedelta(seconds=span.duration) for span in spans)
    return TraceSummary(
        trace_id=root.trace_id,
        start=start,
        duration=(end - start).total_seconds(),
        services=sorted({span.service for span in spans}),
        spans=len(spans),
        error=any(span.error for span in spans),
        root=f"{root.service}: {root.name}",
    )
