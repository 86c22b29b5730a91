"""What is encoded by hand is read with opentelemetry-proto."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from devmesh.sidecar.record import Flag, TraceContext
from devmesh.sidecar.telemetry.spans import SHARED, SpanEncoder, flags_text
from tests.sidecar.telemetry.records import CLUSTER, PRODUCTPAGE, START, attempt, inbound, outbound


def plain(value):
    return getattr(value, value.WhichOneof("value"))


def exported(*records, encoder=None):
    encoder = encoder or SpanEncoder(PRODUCTPAGE)
    request = ExportTraceServiceRequest.FromString(encoder.export([span for record in records for span in encoder.encode(record)]))
    (resource,) = request.resource_spans
    return resource, list(resource.scope_spans[0].spans)


def attributes(span):
    return {pair.key: plain(pair.value) for pair in span.attributes}


def test_a_request_out_is_a_client_span_with_one_below_it_per_attempt():
    resource, (request, first, second) = exported(outbound(attempts=[attempt(status=503), attempt(span_id=b"\x05" * 8)]))
    assert {pair.key: plain(pair.value) for pair in resource.resource.attributes} == {
        "service.name": "productpage.default",
        "service.version": "v1",
        "service.namespace": "default",
        "service.instance.id": "productpage-v1",
    }
    assert (request.trace_id, request.span_id, request.parent_span_id) == (b"\x01" * 16, b"\x02" * 8, b"\x03" * 8)
    assert (request.kind, request.name, request.flags) == (Span.SPAN_KIND_CLIENT, "GET reviews", 0x301)
    assert (request.start_time_unix_nano, request.end_time_unix_nano) == (START, START + 12_900_000)
    assert [(a.parent_span_id, a.span_id, a.kind, a.name, a.flags) for a in (first, second)] == [
        (b"\x02" * 8, b"\x04" * 8, Span.SPAN_KIND_CLIENT, f"router {CLUSTER} egress", 0x101),
        (b"\x02" * 8, b"\x05" * 8, Span.SPAN_KIND_CLIENT, f"router {CLUSTER} egress", 0x101),
    ]
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (START + 1000, START + 5000)
    assert "http.request.resend_count" not in attributes(first)
    assert attributes(second)["http.request.resend_count"] == 1
    assert (first.status.code, second.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET)
    assert attributes(first)["error.type"] == "503"


def test_a_client_spans_attributes_are_otels_and_istios():
    _, (request, one) = exported(outbound(route_origin="/apis/x", route_source="mesh/r.yaml:7:5", peer_principal="spiffe://p"))
    assert attributes(request) == {
        "http.request.method": "GET",
        "server.address": "reviews",
        "server.port": 9080,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "url.full": "http://reviews:9080/reviews/0?u=1",
        "user_agent.original": "curl/8",
        "http.response.status_code": 200,
        "guid:x-request-id": "b71d7bb7-6c6e-4d53-99a1-d2258423b650",
        "response_flags": "-",
        "upstream_cluster": CLUSTER,
        "request_size": 7,
        "response_size": 1234,
        "devmesh.route": "default",
        "devmesh.peer": "spiffe://p",
        "istio.config": "/apis/x",
        "devmesh.source": "mesh/r.yaml:7:5",
        "component": "proxy",
        "node_id": PRODUCTPAGE.node_id,
        "istio.canonical_service": "productpage",
        "istio.canonical_revision": "v1",
        "istio.mesh_id": "m1",
        "istio.namespace": "default",
        "istio.cluster_id": "Kubernetes",
    }
    assert attributes(one) | {"network.peer.address": "127.7.0.3", "network.peer.port": 9080, "upstream_cluster": CLUSTER} == attributes(
        one
    )


def test_a_request_in_is_one_server_span():
    _, (span,) = exported(inbound(mtls=True))
    found = attributes(span)
    assert (span.kind, span.flags) == (Span.SPAN_KIND_SERVER, 0x301)
    assert (found["url.path"], found["url.query"], found["url.scheme"]) == ("/reviews/0", "u=1", "https")
    assert found["client.address"] == "127.0.0.1"
    assert "url.full" not in found


def test_a_call_that_met_a_fault_names_it():
    _, (span,) = exported(inbound(fault_id="f1"))
    assert attributes(span)["devmesh.fault"] == "f1"
    assert "devmesh.fault" not in attributes(exported(inbound())[1][0])


def test_the_root_of_a_trace_has_no_parent():
    _, (span,) = exported(inbound(trace=TraceContext(b"\x01" * 16, b"\x02" * 8, None, sampled=True, tracestate=b"a=1")))
    assert (span.parent_span_id, span.flags, span.trace_state) == (b"", 0x101, "a=1")


@pytest.mark.parametrize(
    ("record", "failed", "error", "why"),
    [
        (inbound(status=200), False, None, "fine"),
        (inbound(status=404), False, None, "a 4xx is no error of the server"),
        (inbound(status=503), True, "503", "a 5xx is"),
        (outbound(status=404), True, "404", "a 4xx is an error of the client"),
        (outbound(status=0, flags=Flag.DC), True, "client_disconnected", "nobody waited for the answer"),
        (inbound(status=0, flags=Flag.DC), True, "client_disconnected", "on either side"),
        (outbound(status=301), False, None, "a redirect is an answer"),
    ],
)
def test_a_span_says_whether_it_failed(record, failed, error, why):
    span = exported(record)[1][0]
    assert (span.status.code == Status.STATUS_CODE_ERROR) is failed, why
    assert attributes(span).get("error.type") == error, why


@pytest.mark.parametrize(
    ("record", "expected", "why"),
    [
        (outbound(flags=Flag.FI, fault_id="f1", route_origin="/apis/x"), "f1", "a fault of ours by its id"),
        (outbound(flags=Flag.DI, route_origin="/apis/x"), "/apis/x", "one of Istio's by the resource it is in"),
        (outbound(flags=Flag.FI), "fault", "one of neither"),
        (outbound(), None, "none"),
    ],
)
def test_an_injected_fault_is_seen_in_the_span(record, expected, why):
    assert attributes(exported(record)[1][0]).get("devmesh.fault") == expected, why


def test_an_attempt_that_got_no_answer_says_why():
    _, (_, one) = exported(outbound(attempts=[attempt(status=0, error="connection_timeout")]))
    assert one.status.code == Status.STATUS_CODE_ERROR
    assert attributes(one)["error.type"] == "connection_timeout"
    assert "http.response.status_code" not in attributes(one)


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({"method": b"BREW"}, "HTTP reviews", "a method that nobody knows is not part of a name"),
        ({"authority": b"reviews"}, "GET reviews", "without a port"),
        ({"authority": b"reviews:x"}, "GET reviews:x", "what is no port stays"),
        ({"authority": b""}, "GET", "without a host"),
        ({"target": b"/secret/1"}, "GET reviews", "never the path"),
    ],
)
def test_names_are_few(changes, name, why):
    assert exported(outbound(**changes))[1][0].name == name, why


def test_an_unknown_method_is_kept_apart():
    found = attributes(exported(outbound(method=b"BREW"))[1][0])
    assert (found["http.request.method"], found["http.request.method_original"]) == ("_OTHER", "BREW")


@pytest.mark.parametrize("size", [0, 60, 90, 100, 110, 120, 127, 128, 300, 20_000])
def test_values_of_any_length_are_read_back(size):
    target = b"/" + b"x" * size
    found = attributes(exported(outbound(target=target, bytes_sent=size << 20, request_id=b"r" * size))[1][0])
    assert found["url.full"] == "http://reviews:9080" + target.decode()
    assert found["response_size"] == size << 20
    assert found["guid:x-request-id"] == "r" * size


def test_bytes_beyond_ascii_become_utf8():
    _, (span,) = exported(inbound(target=b"/\xe9?\xff", authority=b"h\xe9", request_headers=[(b"user-agent", b"\xfc")]))
    found = attributes(span)
    assert (found["url.path"], found["url.query"], found["server.address"], found["user_agent.original"]) == ("/é", "ÿ", "hé", "ü")


def test_what_is_shared_is_not_mixed_up_between_requests():
    encoder = SpanEncoder(PRODUCTPAGE)
    one = exported(outbound(), encoder=encoder)[1]
    exported(outbound(status=503, authority=b"ratings:9080", method=b"POST"), inbound(), encoder=encoder)
    assert exported(outbound(), encoder=encoder)[1] == one


def test_invented_hosts_do_not_fill_the_memory():
    encoder = SpanEncoder(PRODUCTPAGE)
    for number in range(SHARED + 10):
        encoder.encode(outbound(authority=b"h%d" % number, attempts=[attempt(endpoint=f"h{number}:1")]))
    assert len(encoder._shared) <= SHARED
    assert len(encoder._attempts) <= SHARED


def test_without_a_trace_there_is_no_span():
    assert SpanEncoder(PRODUCTPAGE).encode(outbound(trace=None)) == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (Flag.NONE, "-"),
        (Flag.UF, "UF"),
        (Flag.DI | Flag.FI, "DI,FI"),
        (Flag.URX | Flag.UT, "URX,UT"),
        (Flag.URX | Flag.UC, "URX,UC"),
        (Flag.UO | Flag.UC, "UO,UC"),
        (Flag.DI | Flag.URX | Flag.UT, "DI,URX,UT"),
        (Flag.UH | Flag.DC, "UH,DC"),
    ],
)
def test_flags_are_printed_in_envoys_order(flags, text):
    assert flags_text(flags) == text


def test_a_tcp_connection_that_failed_is_printed_as_envoy_prints_it():
    assert flags_text(Flag.UF | Flag.URX, tcp=True) == "UF,URX"
    assert flags_text(Flag.UF | Flag.URX) == "URX,UF"
