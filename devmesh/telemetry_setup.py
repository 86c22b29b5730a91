"""The OpenTelemetry SDK for the control plane, the CA and the CLI. Imported lazily: a CLI that shows help pays nothing for it.

Sidecars do not use this: they encode their own spans (devmesh/sidecar/telemetry).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

# A collector that is down must not hold up a command's end by more than this.
EXPORT_TIMEOUT_SECONDS = 2.0
EXPORT_DELAY_MILLISECONDS = 1000


class Sender:
    """A span exporter (OpenTelemetry's SpanExporter) that becomes OTLP/HTTP's with the first spans, in the thread that sends them.

    Its import takes four times as long as the SDK's, and a server that starts has none of it to wait for.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._exporter: SpanExporter | None = None

    def export(self, spans: Sequence["ReadableSpan"]) -> "SpanExportResult":
        if self._exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  lazy: 70 ms

            self._exporter = OTLPSpanExporter(endpoint=self._url, timeout=EXPORT_TIMEOUT_SECONDS)
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        if self._exporter is not None:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter is None or self._exporter.force_flush(timeout_millis)


class Telemetry:
    """One component's spans, sent to `otlp_url` (the whole URL, `.../v1/traces`); without one they are dropped and nothing is imported."""

    def __init__(self, service: str, otlp_url: str | None, attributes: Mapping[str, str] | None = None) -> None:
        self._service = service
        self._otlp_url = otlp_url
        self._attributes = dict(attributes or {})
        self._provider: TracerProvider | None = None

    def start(self) -> None:
        """Build the SDK; a batch processor's thread runs from here on, so call it after a fork, never before."""
        if not self._otlp_url or self._provider is not None:
            return
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  lazy: 20 ms
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  lazy
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  lazy

        resource = Resource.create({"service.name": self._service} | self._attributes)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(cast("SpanExporter", Sender(self._otlp_url)), schedule_delay_millis=EXPORT_DELAY_MILLISECONDS)
        )

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any] | None = None, *, traceparent: str | None = None) -> Iterator[None]:
        """Measure a piece of work; an exception in it is the span's error. `traceparent` joins the caller's trace."""
        if self._provider is None:
            yield
            return
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415  lazy

        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
        tracer = self._provider.get_tracer("devmesh")
        with tracer.start_as_current_span(name, context=parent, attributes=dict(attributes or {})):
            yield

    def headers(self) -> dict[str, str]:
        """Give the headers that make the next request part of the current span."""
        if self._provider is None:
            return {}
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415  lazy

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier

    def shutdown(self) -> None:
        """Send what is left and stop the thread."""
        if self._provider is not None:
            self._provider.shutdown()
            self._provider = None
