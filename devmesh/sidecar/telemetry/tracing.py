"""Trace contexts: W3C Trace Context first, B3 in the form it came (single header or multi)."""

from __future__ import annotations

import random
import re
from typing import Final, NamedTuple

from devmesh.sidecar.message import Headers, get_header, set_header
from devmesh.sidecar.record import TraceContext

# Version 00 ends after the flags; a later version may go on after a dash (W3C Trace Context section 3.2.4).
TRACEPARENT: Final = re.compile(
    rb"(?:00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})|(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)"
)
B3_SINGLE: Final = re.compile(rb"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d]))?(?:-[0-9a-f]{16})?")
B3_ID: Final = re.compile(rb"[0-9a-f]{16}|[0-9a-f]{32}")
MULTI: Final = frozenset({b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"})
NAMES: Final = MULTI | {b"traceparent", b"b3"}
DECISIONS: Final = {b"1": True, b"d": True, b"true": True, b"0": False, b"false": False}


class _Caller(NamedTuple):
    """What the caller said: ids, or only a decision; `sampled` None leaves the decision to us (B3)."""

    trace_id: bytes = b""
    span_id: bytes = b""
    sampled: bool | None = None
    tracestate: bytes = b""


NOBODY: Final = _Caller()


def extract(headers: Headers) -> TraceContext | None:
    """The caller's span, which is the parent of ours; None when there is none. A deferred decision counts as yes."""
    caller = _caller(headers)
    if not caller.trace_id:
        return None
    return TraceContext(caller.trace_id, caller.span_id, None, caller.sampled is not False, caller.tracestate)


def _caller(headers: Headers) -> _Caller:
    found = {name: value for name, value in headers if name in NAMES}
    if not found:
        return NOBODY
    parent = found.get(b"traceparent")
    if parent is not None and (match := TRACEPARENT.fullmatch(parent)) is not None:
        trace_id, span_id, flags = match[1] or match[4], match[2] or match[5], match[3] or match[6]
        if trace_id.strip(b"0") and span_id.strip(b"0"):
            state = b",".join(value for name, value in headers if name == b"tracestate")
            return _Caller(bytes.fromhex(trace_id.decode()), bytes.fromhex(span_id.decode()), bool(int(flags, 16) & 1), state)
    single = found.get(b"b3")
    if single is not None:
        return _single(single)
    return NOBODY if MULTI.isdisjoint(found) else _multi(headers)


def _single(value: bytes) -> _Caller:
    match = B3_SINGLE.fullmatch(value)
    if match is None:
        return _Caller(sampled=DECISIONS.get(value))
    return _ids(match[1], match[2], DECISIONS.get(match[3] or b""))


def _multi(headers: Headers) -> _Caller:
    sampled = DECISIONS.get(get_header(headers, b"x-b3-sampled") or b"")
    if get_header(headers, b"x-b3-flags") == b"1":  # debug: always sampled
        sampled = True
    trace_id, span_id = get_header(headers, b"x-b3-traceid") or b"", get_header(headers, b"x-b3-spanid") or b""
    if B3_ID.fullmatch(trace_id) is None or len(span_id) != 16 or B3_ID.fullmatch(span_id) is None:
        return _Caller(sampled=sampled)
    return _ids(trace_id, span_id, sampled)


def _ids(trace_id: bytes, span_id: bytes, sampled: bool | None) -> _Caller:  # noqa: FBT001 - the caller's decision, or none
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return _Caller(sampled=sampled)
    return _Caller(bytes.fromhex(trace_id.decode()).rjust(16, b"\0"), bytes.fromhex(span_id.decode()), sampled)


def start(headers: Headers, sampling: float, rng: random.Random) -> TraceContext:
    """Our span: a child of the caller's, else the root of a new trace; sampled as the caller says, else with `sampling` percent."""
    caller = _caller(headers)
    sampled = rng.random() * 100 < sampling if caller.sampled is None else caller.sampled
    if caller.trace_id:
        return TraceContext(caller.trace_id, rng.randbytes(8), caller.span_id, sampled, caller.tracestate)
    return TraceContext(rng.randbytes(16), rng.randbytes(8), None, sampled)


def inject(headers: Headers, context: TraceContext) -> None:
    """Write our span as the parent of what comes next; B3 headers only where the request carried some."""
    _write(headers, context, context.span_id, context.parent_id)


def with_parent(headers: Headers, context: TraceContext, span_id: bytes) -> Headers:
    """A copy of the headers in which the attempt's span is the parent, so that the next hop hangs below its attempt."""
    out = list(headers)
    _write(out, context, span_id, context.span_id)
    return out


def _write(headers: Headers, context: TraceContext, span: bytes, parent: bytes | None) -> None:
    trace_id, span_id = context.trace_id.hex().encode(), span.hex().encode()
    set_header(headers, b"traceparent", b"00-%b-%b-%b" % (trace_id, span_id, b"01" if context.sampled else b"00"))
    names = {name for name, _ in headers if name in NAMES}
    if len(names) > 1:
        values = (trace_id, span_id, parent, b"1" if context.sampled else b"0")
        _write_b3(headers, values, single=b"b3" in names, multi=not names.isdisjoint(MULTI))


def _write_b3(headers: Headers, values: tuple[bytes, bytes, bytes | None, bytes], *, single: bool, multi: bool) -> None:
    trace_id, span_id, parent, sampled = values
    if single:
        set_header(headers, b"b3", trace_id + b"-" + span_id + b"-" + sampled)
    if multi:
        set_header(headers, b"x-b3-traceid", trace_id)
        set_header(headers, b"x-b3-spanid", span_id)
        set_header(headers, b"x-b3-sampled", sampled)
        if parent is not None:
            set_header(headers, b"x-b3-parentspanid", parent.hex().encode())
