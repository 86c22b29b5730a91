import random

import pytest

from devmesh.sidecar.record import TraceContext
from devmesh.sidecar.telemetry.tracing import extract, inject, start, with_parent

T, S = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE, SPAN = bytes.fromhex(T), bytes.fromhex(S)
SHORT = T[16:]


def headers(*pairs):
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize(
    ("pairs", "expected", "why"),
    [
        ([("traceparent", f"00-{T}-{S}-01")], TraceContext(TRACE, SPAN, None, sampled=True), "W3C"),
        ([("traceparent", f"00-{T}-{S}-00")], TraceContext(TRACE, SPAN, None, sampled=False), "not sampled"),
        (
            [("traceparent", f"00-{T}-{S}-01"), ("tracestate", "a=1"), ("tracestate", "b=2")],
            TraceContext(TRACE, SPAN, None, sampled=True, tracestate=b"a=1,b=2"),
            "several tracestate headers are one list",
        ),
        ([("traceparent", f"cc-{T}-{S}-01-what-comes")], TraceContext(TRACE, SPAN, None, sampled=True), "a later version may say more"),
        ([("traceparent", f"00-{T}-{S}-01-more")], None, "version 00 may not"),
        ([("traceparent", f"00-{T}-{S}-0")], None, "cut short"),
        ([("traceparent", f"ff-{T}-{S}-01")], None, "a version that never is"),
        ([("traceparent", f"00-{T.upper()}-{S}-01")], None, "capitals are not allowed"),
        ([("traceparent", f"00-{'0' * 32}-{S}-01")], None, "a trace of zeros"),
        ([("traceparent", f"00-{T}-{'0' * 16}-01")], None, "a span of zeros"),
        ([("b3", f"{T}-{S}-1")], TraceContext(TRACE, SPAN, None, sampled=True), "B3 in one header"),
        ([("b3", f"{T}-{S}-d")], TraceContext(TRACE, SPAN, None, sampled=True), "debug is sampled"),
        ([("b3", f"{T}-{S}-0-05e3ac9a4f6e3b90")], TraceContext(TRACE, SPAN, None, sampled=False), "with its parent"),
        ([("b3", f"{SHORT}-{S}-1")], TraceContext(bytes(8) + TRACE[8:], SPAN, None, sampled=True), "64-bit ids are padded"),
        ([("b3", "0")], None, "a decision alone is no span"),
        ([("b3", f"{T}-short-1")], None, "no span id"),
        ([("x-b3-traceid", T), ("x-b3-spanid", S), ("x-b3-sampled", "1")], TraceContext(TRACE, SPAN, None, sampled=True), "B3 in several"),
        ([("x-b3-traceid", T), ("x-b3-spanid", S), ("x-b3-sampled", "0")], TraceContext(TRACE, SPAN, None, sampled=False), "not sampled"),
        (
            [("x-b3-traceid", T), ("x-b3-spanid", S), ("x-b3-sampled", "0"), ("x-b3-flags", "1")],
            TraceContext(TRACE, SPAN, None, sampled=True),
            "debug overrules",
        ),
        ([("x-b3-traceid", T)], None, "a trace without a span"),
        ([("x-b3-traceid", T), ("x-b3-spanid", T)], None, "a span id of 128 bits"),
        ([("traceparent", "nonsense"), ("b3", f"{T}-{S}-1")], TraceContext(TRACE, SPAN, None, sampled=True), "B3 where W3C is broken"),
        (
            [("traceparent", f"00-{T}-{S}-01"), ("b3", f"{SHORT}-{S}-0")],
            TraceContext(TRACE, SPAN, None, sampled=True),
            "W3C comes first",
        ),
        ([], None, "nobody traces"),
    ],
)
def test_the_callers_span_is_found(pairs, expected, why):
    assert extract(headers(*pairs)) == expected, why


@pytest.mark.parametrize(
    ("pairs", "sampling", "sampled", "why"),
    [
        ([], 100.0, True, "a new trace is sampled by percent"),
        ([], 0.0, False, "or not"),
        ([("traceparent", f"00-{T}-{S}-00")], 100.0, False, "the caller's decision stands"),
        ([("traceparent", f"00-{T}-{S}-01")], 0.0, True, "either way"),
        ([("b3", f"{T}-{S}")], 0.0, False, "B3 may leave it to us"),
        ([("b3", f"{T}-{S}")], 100.0, True, "B3 may leave it to us"),
        ([("b3", "0")], 100.0, False, "or decide without a span"),
        ([("b3", "1")], 0.0, True, "or decide without a span"),
        ([("x-b3-sampled", "1")], 0.0, True, "in its other form too"),
    ],
)
def test_a_span_begins(pairs, sampling, sampled, why):
    context = start(headers(*pairs), sampling, random.Random(1))
    assert context.sampled is sampled, why
    parent = extract(headers(*pairs))
    assert (context.trace_id, context.parent_id) == ((parent.trace_id, parent.span_id) if parent else (context.trace_id, None))
    assert (len(context.trace_id), len(context.span_id)) == (16, 8)
    assert context.span_id != SPAN


def test_a_share_of_the_new_traces_is_sampled():
    rng = random.Random(5)
    assert 5 <= sum(start([], 1.0, rng).sampled for _ in range(1000)) <= 17


CONTEXT = TraceContext(TRACE, SPAN, bytes.fromhex("05e3ac9a4f6e3b90"), sampled=True)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ([("x", "1")], [("x", "1"), ("traceparent", f"00-{T}-{S}-01")], "W3C is always written"),
        ([("traceparent", "old"), ("x", "1")], [("traceparent", f"00-{T}-{S}-01"), ("x", "1")], "in the old one's place"),
        ([("traceparent", "a"), ("x", "1"), ("traceparent", "b")], [("traceparent", f"00-{T}-{S}-01"), ("x", "1")], "once"),
        ([("b3", "old")], [("b3", f"{T}-{S}-1"), ("traceparent", f"00-{T}-{S}-01")], "B3 in the form it came"),
        (
            [("x-b3-traceid", "old"), ("x-b3-sampled", "0")],
            [
                ("x-b3-traceid", T),
                ("x-b3-sampled", "1"),
                ("traceparent", f"00-{T}-{S}-01"),
                ("x-b3-spanid", S),
                ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
            ],
            "complete in that form",
        ),
    ],
)
def test_our_span_is_written_as_the_next_parent(before, after, why):
    found = headers(*before)
    inject(found, CONTEXT)
    assert found == headers(*after), why


def test_an_unsampled_span_says_so():
    found = headers(("b3", "old"))
    inject(found, TraceContext(TRACE, SPAN, None, sampled=False))
    assert found == headers(("b3", f"{T}-{S}-0"), ("traceparent", f"00-{T}-{S}-00"))


def test_each_attempt_is_a_parent_of_its_own_and_the_request_stays():
    request = headers(("x-b3-traceid", T), ("x-b3-spanid", S))
    sent = with_parent(request, CONTEXT, b"\x09" * 8)
    assert extract(sent) == TraceContext(TRACE, b"\x09" * 8, None, sampled=True)
    assert dict(sent)[b"x-b3-parentspanid"] == S.encode()
    assert request == headers(("x-b3-traceid", T), ("x-b3-spanid", S))
