"""Spans of control plane, CA and CLI reach a collector, and cost nothing where there is none."""

import gzip
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from devmesh.telemetry_setup import Telemetry


@pytest.fixture
def collector():
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"])), self.headers))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.received = received
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_span_reaches_the_collector_and_joins_the_callers_trace(collector):
    telemetry = Telemetry("devmesh-control", f"http://127.0.0.1:{collector.server_port}/v1/traces", {"devmesh.mesh": "m1"})
    telemetry.start()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with telemetry.span("compile", {"devmesh.generation": "g1"}, traceparent=f"00-{trace_id}-b7ad6b7169203331-01"):
        assert telemetry.headers()["traceparent"].startswith(f"00-{trace_id}-")
    telemetry.shutdown()
    [(path, body, headers)] = collector.received
    assert path == "/v1/traces"
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    [resource] = ExportTraceServiceRequest.FromString(body).resource_spans
    [span] = resource.scope_spans[0].spans
    assert span.name == "compile"
    assert span.trace_id.hex() == trace_id
    assert {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}["service.name"] == "devmesh-control"


def test_without_a_collector_there_is_no_sdk():
    program = """
import sys
from devmesh.telemetry_setup import Telemetry
telemetry = Telemetry("x", None)
telemetry.start()
with telemetry.span("y"):
    assert telemetry.headers() == {}
telemetry.shutdown()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_what_sends_spans_is_not_loaded_until_there_are_some():
    program = """
import sys
from devmesh.telemetry_setup import Telemetry
telemetry = Telemetry("x", "http://127.0.0.1:9/v1/traces")
telemetry.start()
print([name for name in ("requests", "google.protobuf", "opentelemetry.sdk.trace") if name in sys.modules])
telemetry.shutdown()
print([name for name in ("requests", "google.protobuf") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['opentelemetry.sdk.trace']", "[]"]
