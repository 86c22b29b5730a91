"""The store's bounds and searches."""

import pytest

from devmesh.collector.store import SPAN_OVERHEAD, Query, StoredSpan, TraceStore

ATTRIBUTES = {("a", "x"), ("n", "5")}


def span(trace_id="t1", span_id="s1", **changes):
    values = {"parent_id": "", "name": "GET /", "service": "front", "kind": "server", "start": 100, "end": 200, "error": False}
    values |= {"body": b"", "resource": b"", "scope": b""}
    return StoredSpan(trace_id=trace_id, span_id=span_id, **(values | changes))


def store_of(**bounds):
    return TraceStore(lambda one: ATTRIBUTES | ({("error", "true")} if one.error else set()), **bounds)


def test_the_trace_updated_longest_ago_goes_first():
    store = store_of(max_traces=2)
    store.add([span("t1"), span("t2"), span("t1", "s2"), span("t3")])
    assert store.trace("t2") is None
    assert store.trace("t1") is not None
    assert len(store) == 2
    assert store.span_count == 3


def test_the_bound_on_spans_holds():
    store = store_of(max_spans=3)
    store.add([span("t1", "1"), span("t1", "2"), span("t2", "1"), span("t2", "2")])
    assert store.trace("t1") is None
    assert store.span_count == 2


def test_the_bound_on_memory_holds_however_large_a_span_is():
    store = store_of(max_bytes=3 * (1_000 + SPAN_OVERHEAD))
    large = b" " * 1_000
    store.add([span("t1", "1", body=large), span("t2", "1", body=large), span("t3", "1", body=large)])
    assert len(store) == 3
    store.add([span("t3", "1", body=large + large)])
    assert [one for one in ("t1", "t2", "t3") if store.trace(one)] == ["t2", "t3"]
    store.add([span("t4", "1", body=large * 10)])
    assert (len(store), store.span_count, store.size) == (0, 0, 0)


def test_a_full_trace_refuses_spans_and_leaves_the_others_alone():
    store = store_of(max_spans_of_trace=2)
    assert store.add([span("t2"), *(span("t1", str(number)) for number in range(5))]) == 3
    assert store.trace("t2") is not None


def test_a_span_sent_twice_is_one():
    store = store_of()
    store.add([span(), span()])
    assert store.span_count == 1


def test_spans_out_of_order_join_and_the_root_is_found():
    store = store_of()
    store.add([span(span_id="child", parent_id="root", start=150, end=400, service="back", error=True)])
    store.add([span(span_id="root")])
    trace = store.trace("t1")
    assert (trace.start, trace.end, trace.error, trace.services) == (100, 400, True, {"front", "back"})
    assert trace.root().span_id == "root"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), ["new", "old"]),
        (Query(limit=1), ["new"]),
        (Query(service="front"), ["old"]),
        (Query(service="front", operation="GET /"), ["old"]),
        (Query(service="front", operation="GET /new"), []),
        (Query(start_min=1_000), ["new"]),
        (Query(start_max=1_000), ["old"]),
        (Query(duration_min=500), ["new"]),
        (Query(duration_max=500), ["old"]),
        (Query(attributes={"a": "x", "n": "5"}), ["new", "old"]),
        (Query(attributes={"a": "z"}), []),
        (Query(attributes={"error": "true"}), ["new"]),
        (Query(errors=True), ["new"]),
    ],
)
def test_search(query, found):
    store = store_of()
    new = span("new", service="back", name="GET /new", start=2_000, end=3_000, error=True, kind="client")
    store.add([new, span("old")])
    assert [trace.trace_id for trace in store.find(query)] == found


def test_services_and_operations():
    store = store_of()
    store.add([span(), span(span_id="s2", kind="client", name="b"), span("t2", service="back")])
    assert store.services() == ["back", "front"]
    assert store.operations("front") == [("GET /", "server"), ("b", "client")]
    assert store.operations("front", "client") == [("b", "client")]


def test_calls_between_services_are_counted_by_spans_whose_parent_is_known():
    store = store_of()
    store.add([span(), span(span_id="s2", parent_id="s1", service="back"), span(span_id="s3", parent_id="s1", service="back")])
    store.add(
        [span(span_id="s4", parent_id="elsewhere", service="back"), span("t2", "x", parent_id="x", service="front", start=900, end=999)]
    )
    assert store.calls(0, 1_000) == {("front", "back"): 2, ("front", "front"): 1}
    assert store.calls(0, 500) == {("front", "back"): 2}
    assert store.calls(100, 500) == {}
