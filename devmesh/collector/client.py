"""Traces for the command line, over Jaeger's query API v3: the embedded collector and a real Jaeger answer alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from devmesh.collector import otlp
from devmesh.collector.store import KINDS, StoredSpan
from devmesh.errors import DevmeshError


@dataclass(frozen=True, slots=True)
class Span:
    """Times in UTC, duration in seconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    kind: str
    start: datetime
    duration: float
    error: bool
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    trace_id: str
    start: datetime
    duration: float
    services: tuple[str, ...]
    spans: int
    error: bool
    root: str


async def _get(url: str, path: str, parameters: Mapping[str, str] | None = None) -> Any:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(url + path, params=parameters) as response,
        ):
            if response.status == 404:
                raise DevmeshError("no such trace", "devmesh traces list")
            if response.status != 200:
                raise DevmeshError(f"{url}{path} answered {response.status}: {(await response.text())[:200]}")
            return await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DevmeshError(f"the collector at {url} does not answer: {error}", "devmesh status") from error


async def list_traces(url: str, service: str | None = None, limit: int = 20, errors_only: bool = False) -> list[TraceSummary]:  # noqa: FBT001, FBT002 - the CLI's flag
    """Newest first."""
    services = [service] if service else (await _get(url, "/api/v3/services"))["services"]
    now = datetime.now(UTC)
    window = {
        "query.start_time_min": (now - timedelta(days=7)).isoformat(),
        "query.start_time_max": (now + timedelta(minutes=5)).isoformat(),
    }
    found: dict[str, list[StoredSpan]] = {}
    for name in services:
        answer = await _get(url, "/api/v3/traces", {**window, "query.service_name": name, "query.search_depth": str(max(limit, 20))})
        for span in otlp.spans(answer["result"]):
            spans = found.setdefault(span.trace_id, [])
            if all(known.span_id != span.span_id for known in spans):
                spans.append(span)
    listed = sorted((_summary(trace_id, spans) for trace_id, spans in found.items()), key=lambda one: one.start, reverse=True)
    return [one for one in listed if one.error or not errors_only][:limit]


def _summary(trace_id: str, spans: list[StoredSpan]) -> TraceSummary:
    first = min(spans, key=lambda span: span.start)
    ids = {span.span_id for span in spans}
    root = next((span for span in sorted(spans, key=lambda s: s.start) if span.parent_id not in ids), first)
    end = max(span.end for span in spans)
    services = tuple(sorted({span.service for span in spans}))
    failed = any(span.error for span in spans)
    return TraceSummary(
        trace_id, _when(first.start), (end - first.start) / 1e9, services, len(spans), failed, f"{root.service}: {root.name}"
    )


async def get_trace(url: str, trace_id: str) -> list[Span]:
    answer = await _get(url, f"/api/v3/traces/{trace_id}")
    return [
        Span(
            s.trace_id,
            s.span_id,
            s.parent_id,
            s.name,
            s.service,
            KINDS[s.kind],
            _when(s.start),
            (s.end - s.start) / 1e9,
            s.error,
            s.attributes,
        )
        for s in otlp.spans(answer["result"])
    ]


def _when(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
