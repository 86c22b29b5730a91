"""Trace contexts: W3C Trace Context first, B3 in the form it came (single header or multi)."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from devmesh.sidecar.message import Headers, get_header, set_header
from devmesh.sidecar.record import TraceContext

TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def extract(headers: Headers) -> TraceContext | None:
    """The caller's context; its span is the parent of ours."""
    match = TRACEPARENT.match(get_header(headers, b"traceparent") or b"")
    if match is not None and match[1] != b"ff" and match[2].strip(b"0") and match[3].strip(b"0"):
        state = get_header(headers, b"tracestate") or b""
        return TraceContext(bytes.fromhex(match[2].decode()), bytes.fromhex(match[3].decode()), None, bool(int(match[4], 16) & 1), state)
    return _extract_b3(headers)


def _extract_b3(headers: Headers) -> TraceContext | None:
    single = (get_header(headers, b"b3") or b"").split(b"-")
    if len(single) >= 2:
        trace_id, span_id, sampled = single[0], single[1], single[2] if len(single) > 2 else b"1"
    else:
        trace_id, span_id = get_header(headers, b"x-b3-traceid") or b"", get_header(headers, b"x-b3-spanid") or b""
        sampled = get_header(headers, b"x-b3-sampled") or b"1"
    try:
        return (
            TraceContext(bytes.fromhex(trace_id.decode()).rjust(16, b"\0"), bytes.fromhex(span_id.decode()), None, sampled in (b"1", b"d"))
            if trace_id
            else None
        )
    except ValueError:
        return None


def start(headers: Headers, sampling: float, rng: random.Random) -> TraceContext:
    """Our span: a child of the caller's, else the root of a new trace, sampled with `sampling` percent."""
    parent = extract(headers)
    if parent is not None and len(parent.span_id) == 8:
        return replace(parent, span_id=rng.randbytes(8), parent_id=parent.span_id)
    return TraceContext(rng.randbytes(16), rng.randbytes(8), None, rng.random() * 100 < sampling)


def inject(headers: Headers, context: TraceContext) -> None:
    """Write our span as the parent of what comes next; B3 headers only where the request carried some."""
    flags = b"01" if context.sampled else b"00"
    trace_id, span_id = context.trace_id.hex().encode(), context.span_id.hex().encode()
    set_header(headers, b"traceparent", b"00-" + trace_id + b"-" + span_id + b"-" + flags)
    sampled = b"1" if context.sampled else b"0"
    if get_header(headers, b"b3") is not None:
        set_header(headers, b"b3", trace_id + b"-" + span_id + b"-" + sampled)
    if get_header(headers, b"x-b3-traceid") is not None:
        set_header(headers, b"x-b3-traceid", trace_id)
        set_header(headers, b"x-b3-spanid", span_id)
        set_header(headers, b"x-b3-sampled", sampled)
        if context.parent_id is not None:
            set_header(headers, b"x-b3-parentspanid", context.parent_id.hex().encode())


def with_parent(headers: Headers, context: TraceContext, span_id: bytes) -> Headers:
    """A copy of the headers in which the attempt's span is the parent, so that the next hop hangs below its attempt."""
    out = list(headers)
    inject(out, replace(context, span_id=span_id, parent_id=context.span_id))
    return out
