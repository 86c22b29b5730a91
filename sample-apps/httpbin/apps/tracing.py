"""An app's own spans, joined to what comes in (W3C Trace Context or B3), sent over OTLP/HTTP.

The SDK loads in a thread once the app listens; requests before that have no span of their own and pass on the trace headers that they brought.
What sends the spans takes four times as long to load, and waits for the first of them.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import contextmanager

B3 = ("b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags")
_loaded = []


def load_in_background(name):
    """Load the SDK if OTEL_EXPORTER_OTLP_ENDPOINT is set; `name` is the service's name when OTEL_SERVICE_NAME is not."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint:
        threading.Thread(target=lambda: _loaded.append(_Spans(endpoint, name)), daemon=True, name="load tracing").start()


def close():
    """Send what is left."""
    if _loaded:
        _loaded[0].provider.shutdown()


@contextmanager
def server_span(method, route, path, headers):
    """The span of a request that came in; None before the SDK is there."""
    if not _loaded:
        yield None
        return
    attributes = {"http.request.method": method, "http.route": route, "url.path": path, "url.scheme": "http"}
    with _loaded[0].server(f"{method} {route}", attributes, headers) as span:
        yield span


@contextmanager
def client_span(parent, method, url, headers):
    """The span of a request that goes out, below `parent`; puts itself into `headers` in the formats they already have."""
    if not _loaded:
        yield None
        return
    attributes = {"http.request.method": method, "url.full": str(url), "server.address": url.host or "", "server.port": url.port or 80}
    with _loaded[0].client(method, parent, attributes) as span:
        _inject(span.get_span_context(), headers)
        yield span


def answered(span, status, failed_from):
    """Put a status on a span; a server fails from 500 on, a client from 400 on (OpenTelemetry's HTTP conventions)."""
    if span is not None:
        span.set_attribute("http.response.status_code", status)
        if status >= failed_from:
            span.set_attribute("error.type", str(status))
            span.set_status(_loaded[0].failed)


def _inject(context, headers):
    trace, span, sampled = f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags) & 1
    headers["traceparent"] = f"00-{trace}-{span}-{sampled:02x}"
    if "b3" in headers:
        headers["b3"] = f"{trace}-{span}-{sampled}"
    if "x-b3-traceid" in headers:
        headers.pop("x-b3-parentspanid", None)
        headers.update({"x-b3-traceid": trace, "x-b3-spanid": span, "x-b3-sampled": str(sampled)})


def traceparent_of(headers: Mapping[str, str]) -> str:
    """The W3C header that comes in, or what B3 says in its words; empty without either or when B3 only denies sampling."""
    if "traceparent" in headers:
        return headers["traceparent"]
    single = headers.get("b3", "").split("-")
    trace, span = (single[0], single[1]) if len(single) > 1 else (headers.get("x-b3-traceid", ""), headers.get("x-b3-spanid", ""))
    sampled = single[2] if len(single) > 2 else headers.get("x-b3-sampled", "1")
    # 64-bit trace ids are still in use; left-padded they are the same trace (B3's specification, "TraceId").
    return f"00-{trace.zfill(32)}-{span}-{'01' if sampled in ('1', 'd', 'true') else '00'}" if trace and span else ""


class _Sender:
    """A span exporter that becomes OTLP/HTTP's with the first spans."""

    def __init__(self, url):
        self._url, self._exporter = url, None

    def export(self, spans):
        if self._exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            self._exporter = OTLPSpanExporter(self._url, timeout=2)
        return self._exporter.export(spans)

    def shutdown(self):
        if self._exporter is not None:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis=30000):
        return self._exporter is None or self._exporter.force_flush(timeout_millis)


class _Spans:
    def __init__(self, endpoint, name):
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        service = os.environ.get("OTEL_SERVICE_NAME", name)
        resource = Resource.create({"service.name": service, "service.instance.id": os.environ.get("POD_NAME", service)})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        sender = _Sender(f"{endpoint.rstrip('/')}/v1/traces")
        self.provider.add_span_processor(BatchSpanProcessor(sender, schedule_delay_millis=200))
        self.failed = trace.Status(trace.StatusCode.ERROR)
        self._trace = trace
        self._tracer = self.provider.get_tracer("sample-apps")
        self._propagator = TraceContextTextMapPropagator()

    def server(self, name, attributes, headers):
        carrier = {"traceparent": traceparent_of(headers), "tracestate": headers.get("tracestate", "")}
        return self._start(name, self._propagator.extract(carrier), self._trace.SpanKind.SERVER, attributes)

    def client(self, name, parent, attributes):
        context = self._trace.set_span_in_context(parent) if parent is not None else None
        return self._start(name, context, self._trace.SpanKind.CLIENT, attributes)

    @contextmanager
    def _start(self, name, context, kind, attributes):
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, str(error)))
            raise
        finally:
            span.end()
