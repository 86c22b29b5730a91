"""Traces in memory, bounded: the trace that was updated longest ago goes first. Timestamps are the senders', however old."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_TRACES = 5000
MAX_SPANS = 200_000
ERROR = 2  # opentelemetry.proto.trace.v1.Status.StatusCode
SERVER = 2
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """One span as OTLP-JSON, with what queries ask for taken out."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start: int  # ns since the epoch
    end: int
    error: bool
    service: str
    attributes: Mapping[str, str]
    resource: Mapping[str, Any]
    scope: Mapping[str, Any]
    span: Mapping[str, Any]


@dataclass(slots=True)
class Trace:
    spans: dict[str, StoredSpan] = field(default_factory=dict)

    @property
    def start(self) -> int:
        return min(span.start for span in self.spans.values())

    @property
    def end(self) -> int:
        return max(span.end for span in self.spans.values())


@dataclass(frozen=True, slots=True)
class Query:
    """None means no limit; times in ns since the epoch, durations in ns."""

    service: str | None = None
    operation: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    start_min: int | None = None
    start_max: int | None = None
    duration_min: int | None = None
    duration_max: int | None = None
    limit: int = 100


class Store:
    def __init__(self, max_traces: int = MAX_TRACES, max_spans: int = MAX_SPANS) -> None:
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._max_traces, self._max_spans = max_traces, max_spans
        self._spans = 0
        self.evicted = 0

    def add(self, span: StoredSpan) -> None:
        trace = self._traces.setdefault(span.trace_id, Trace())
        self._traces.move_to_end(span.trace_id)
        self._spans += span.span_id not in trace.spans
        trace.spans[span.span_id] = span
        while len(self._traces) > self._max_traces or (self._spans > self._max_spans and len(self._traces) > 1):
            _, gone = self._traces.popitem(last=False)
            self._spans -= len(gone.spans)
            self.evicted += 1

    def get(self, trace_id: str) -> Trace | None:
        return self._traces.get(trace_id)

    def services(self) -> list[str]:
        return sorted({span.service for trace in self._traces.values() for span in trace.spans.values()})

    def operations(self, service: str, kind: str | None = None) -> list[tuple[str, str]]:
        found = {(s.name, KINDS[s.kind]) for t in self._traces.values() for s in t.spans.values() if s.service == service}
        return sorted(pair for pair in found if not kind or pair[1] == kind)

    def find(self, query: Query) -> Iterator[Trace]:
        """Newest first; a trace fits when one of its spans does."""
        newest = sorted((t for t in self._traces.values() if self._fits(t, query)), key=lambda trace: trace.start, reverse=True)
        yield from newest[: query.limit]

    def _fits(self, trace: Trace, query: Query) -> bool:
        start = trace.start
        if query.start_min is not None and start < query.start_min:
            return False
        if query.start_max is not None and start > query.start_max:
            return False
        return any(_span_fits(span, query) for span in trace.spans.values())


def _span_fits(span: StoredSpan, query: Query) -> bool:
    duration = span.end - span.start
    if query.service and span.service != query.service:
        return False
    if query.operation and span.name != query.operation:
        return False
    if query.duration_min is not None and duration < query.duration_min:
        return False
    if query.duration_max is not None and duration > query.duration_max:
        return False
    return all(span.attributes.get(key) == value for key, value in query.attributes.items())
