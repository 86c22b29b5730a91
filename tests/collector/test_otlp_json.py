"""OTLP JSON, held against protobuf's own JSON where the two agree."""

import base64
import math

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from devmesh.collector.otlp_json import resource_json, scope_json, span_json, text_of, value_json

TRACE, ID, PARENT = bytes(range(16)), b"12345678", b"abcdefgh"


def attributes(owner):
    for name, kind, value in (
        ("s", "string_value", "é"),
        ("b", "bool_value", False),
        ("i", "int_value", -(2**62)),
        ("d", "double_value", 0.1),
    ):
        setattr(owner.attributes.add(key=name).value, kind, value)
    owner.attributes.add(key="y").value.bytes_value = b"\xff\x00"
    owner.attributes.add(key="a").value.array_value.values.add().int_value = 1
    owner.attributes.add(key="k").value.kvlist_value.values.add(key="inner").value.string_value = "v"
    owner.attributes.add(key="none")


def full_span():
    span = Span(trace_id=TRACE, span_id=ID, parent_span_id=PARENT, name="GET /", kind=3, trace_state="a=b", flags=257)
    span.start_time_unix_nano, span.end_time_unix_nano = 1_700_000_000_000_000_001, 1_700_000_000_000_000_002
    span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count = 1, 2, 3
    attributes(span)
    attributes(span.events.add(time_unix_nano=5, name="e", dropped_attributes_count=4))
    attributes(span.links.add(trace_id=TRACE, span_id=ID, trace_state="c=d", flags=1, dropped_attributes_count=5))
    span.status.code, span.status.message = 2, "boom"
    return span


def hex_ids(value):
    for owner in (value, *value.get("links", ())):
        owner.update({name: base64.b64decode(owner[name]).hex() for name in ("traceId", "spanId", "parentSpanId") if name in owner})
    return value


def test_a_span_with_everything():
    assert span_json(full_span()) == hex_ids(MessageToDict(full_span(), use_integers_for_enums=True))


def test_a_span_with_nothing_says_at_least_what_jaeger_says():
    found = span_json(Span(trace_id=TRACE, span_id=ID, parent_span_id=bytes(8)))
    assert (found["traceId"], found["spanId"], found["status"]) == (TRACE.hex(), ID.hex(), {})
    assert "parentSpanId" not in found


@pytest.mark.parametrize(("message", "convert"), [(Resource(), resource_json), (InstrumentationScope(name="n", version="1"), scope_json)])
def test_resource_and_scope(message, convert):
    attributes(message)
    assert convert(message) == MessageToDict(message)


@pytest.mark.parametrize(("number", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (1.5, 1.5)])
def test_numbers_that_json_has_no_word_for(number, text):
    assert value_json(AnyValue(double_value=number)) == {"doubleValue": text} == MessageToDict(AnyValue(double_value=number))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AnyValue(string_value="x"), "x"),
        (AnyValue(bool_value=True), "true"),
        (AnyValue(int_value=5), "5"),
        (AnyValue(double_value=0.5), "0.5"),
        (AnyValue(), ""),
    ],
)
def test_what_a_search_compares(value, text):
    assert text_of(value) == text
