"""Spans in memory, bounded: the trace that was updated longest ago goes first. Pure and synchronous."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

MAX_TRACES = 5_000
MAX_SPANS = 200_000
# A whole mesh is to stay below 500 MB. A usual span has a kilobyte, so this is the bound that a busy mesh meets first.
MAX_BYTES = 96 * 1024 * 1024
# What a span takes beside its body: the object, its ids and its places in two dictionaries (measured).
SPAN_OVERHEAD = 400
# A loop that never ends its trace must not push out all the others.
MAX_SPANS_OF_TRACE = 20_000


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span; times are nanoseconds since the epoch; body, resource and scope are OTLP's messages as they came over the wire."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    kind: str
    start: int
    end: int
    error: bool
    body: bytes
    resource: bytes
    scope: bytes

    @property
    def size(self) -> int:
        """About how many bytes of memory the span takes; resource and scope are shared with those that came along."""
        return len(self.body) + SPAN_OVERHEAD


Attributes = Callable[[StoredSpan], AbstractSet[tuple[str, str]]]


@dataclass(slots=True)
class StoredTrace:
    trace_id: str
    spans: dict[str, StoredSpan] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)
    start: int = 0
    end: int = 0
    error: bool = False
    size: int = 0

    def put(self, span: StoredSpan) -> None:
        self.start = min(self.start, span.start) if self.spans else span.start
        self.end = max(self.end, span.end)
        self.error = self.error or span.error
        self.services.add(span.service)
        before = self.spans.get(span.span_id)
        self.size += span.size - (before.size if before else 0)
        self.spans[span.span_id] = span

    def root(self) -> StoredSpan:
        """The earliest span whose parent is not here: the true root, or the best we have until it arrives."""
        tops = [span for span in self.spans.values() if span.parent_id not in self.spans]
        return min(tops or self.spans.values(), key=lambda span: (bool(span.parent_id), span.start))


@dataclass(frozen=True, slots=True)
class Query:
    """A search: one span of a trace must meet all of it. Times and durations in nanoseconds."""

    service: str = ""
    operation: str = ""
    start_min: int | None = None
    start_max: int | None = None
    duration_min: int | None = None
    duration_max: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    errors: bool = False
    limit: int = 20

    def meets(self, span: StoredSpan, attributes_of: Attributes) -> bool:
        if (self.service and span.service != self.service) or (self.operation and span.name != self.operation):
            return False
        if not _within(span.start, self.start_min, self.start_max):
            return False
        if not _within(span.end - span.start, self.duration_min, self.duration_max):
            return False
        return not self.attributes or self.attributes.items() <= attributes_of(span)


class TraceStore:
    """`attributes_of` reads a span's attributes as text when a search asks for some."""

    def __init__(
        self,
        attributes_of: Attributes,
        *,
        max_traces: int = MAX_TRACES,
        max_spans: int = MAX_SPANS,
        max_spans_of_trace: int = MAX_SPANS_OF_TRACE,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._attributes_of = attributes_of
        self._max_traces = max_traces
        self._max_spans = max_spans
        self._max_spans_of_trace = min(max_spans, max_spans_of_trace)
        self._max_bytes = max_bytes
        self._traces: OrderedDict[str, StoredTrace] = OrderedDict()
        self.span_count = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, spans: Iterable[StoredSpan]) -> int:
        """Take spans in any order and of any age; give how many were refused because their trace is full."""
        refused = sum(not self._put(span) for span in spans)
        while len(self._traces) > self._max_traces or self.span_count > self._max_spans or self.size > self._max_bytes:
            _, oldest = self._traces.popitem(last=False)
            self.span_count -= len(oldest.spans)
            self.size -= oldest.size
        return refused

    def _put(self, span: StoredSpan) -> bool:
        trace = self._traces.get(span.trace_id)
        if trace is None:
            trace = self._traces[span.trace_id] = StoredTrace(span.trace_id)
        self._traces.move_to_end(span.trace_id)
        # An exporter that saw no answer sends the same span again: it replaces itself.
        if span.span_id not in trace.spans:
            if len(trace.spans) >= self._max_spans_of_trace:
                return False
            self.span_count += 1
        self.size -= trace.size
        trace.put(span)
        self.size += trace.size
        return True

    def trace(self, trace_id: str) -> StoredTrace | None:
        return self._traces.get(trace_id)

    def services(self) -> list[str]:
        return sorted({service for trace in self._traces.values() for service in trace.services})

    def operations(self, service: str, kind: str = "") -> list[tuple[str, str]]:
        """The (name, kind) pairs that a service's spans have."""
        spans = (span for trace in self._of(service) for span in trace.spans.values())
        return sorted({(span.name, span.kind) for span in spans if span.service == service and kind in ("", span.kind)})

    def calls(self, earliest: int, latest: int) -> Counter[tuple[str, str]]:
        """(caller's service, callee's) -> spans whose parent is known, in traces that lie between two times."""
        traces = (trace for trace in self._traces.values() if earliest < trace.start and trace.end < latest)
        return Counter(
            (trace.spans[span.parent_id].service, span.service)
            for trace in traces
            for span in trace.spans.values()
            if span.parent_id in trace.spans
        )

    def _of(self, service: str) -> Iterator[StoredTrace]:
        return (trace for trace in self._traces.values() if not service or service in trace.services)

    def find(self, query: Query) -> list[StoredTrace]:
        """The newest traces that meet a query."""
        found: list[StoredTrace] = []
        for trace in sorted(self._of(query.service), key=lambda trace: trace.start, reverse=True):
            if len(found) >= query.limit:
                break
            if (trace.error or not query.errors) and any(query.meets(span, self._attributes_of) for span in trace.spans.values()):
                found.append(trace)
        return found


def _within(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
