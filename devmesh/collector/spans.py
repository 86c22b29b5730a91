"""Spans and traces as the command line shows them, whichever API they came by."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


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


def summary(spans: list[Span]) -> TraceSummary:
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


def moment(microseconds: int) -> datetime:
    """Since the epoch; exact, as a float would not be."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
