"""What the conformance suite does not reach of Jaeger's model: ids of 64 bits, values that JSON lacks, several processes, references."""

import math

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from devmesh.collector.jaeger_json import trace_json
from devmesh.collector.store import StoredSpan, StoredTrace

TRACE, PARENT, ID = "0" * 16 + "00000000000000ab", "00000000000000a1", "00000000000000a2"


def trace_of(*spans, service="front"):
    trace = StoredTrace(TRACE)
    for number, (span_id, message, resource) in enumerate(spans):
        parent = message.parent_span_id.hex()
        values = {
            "name": "GET /",
            "service": service,
            "kind": "server",
            "start": 1_999 + number,
            "end": 5_999,
            "error": False,
            "scope": b"",
        }
        trace.put(StoredSpan(TRACE, span_id, parent, body=message.SerializeToString(), resource=resource.SerializeToString(), **values))
    return trace_json(trace)


def only(message):
    return trace_of((ID, message, Resource()))["spans"][0]


def test_a_short_trace_id_is_written_short():
    assert only(Span())["traceID"] == "00000000000000ab"


def test_microseconds_are_cut_not_rounded():
    assert (only(Span())["startTime"], only(Span())["duration"]) == (1, 4)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (AnyValue(), "string", ""),
        (AnyValue(double_value=math.inf), "float64", "inf"),
        (AnyValue(int_value=2**53 - 1), "int64", 2**53 - 1),
        (AnyValue(int_value=-(2**53)), "int64", str(-(2**53))),
    ],
)
def test_values_that_a_client_of_json_could_not_read(value, kind, text):
    [tag] = only(Span(attributes=[KeyValue(key="a", value=value)]))["tags"]
    assert tag == {"key": "a", "type": kind, "value": text}


def test_one_process_for_each_resource():
    other = Resource(attributes=[KeyValue(key="host.name", value=AnyValue(string_value="h"))])
    found = trace_of(("a" * 16, Span(), Resource()), ("b" * 16, Span(), other), ("c" * 16, Span(), Resource()))
    assert [span["processID"] for span in found["spans"]] == ["p1", "p2", "p1"]
    assert found["processes"]["p2"] == {"serviceName": "front", "tags": [{"key": "host.name", "type": "string", "value": "h"}]}


def link(span_id, kind=None):
    attributes = [KeyValue(key="opentracing.ref_type", value=AnyValue(string_value=kind))] if kind else []
    return Span.Link(trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(span_id), attributes=attributes)


def test_a_link_to_the_parent_says_what_reference_that_is():
    message = Span(parent_span_id=bytes.fromhex(PARENT), links=[link(ID, "child_of"), link(PARENT)])
    assert [(one["refType"], one["spanID"]) for one in only(message)["references"]] == [("FOLLOWS_FROM", PARENT), ("CHILD_OF", ID)]
