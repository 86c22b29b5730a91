"""OTLP requests, protobuf or JSON, to spans of the store, and spans of the store to OTLP JSON.

opentelemetry-proto is imported with the first request: it is half of what the collector would otherwise start with.
"""

import base64
import binascii
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from devmesh.collector import otlp_json
from devmesh.collector.store import StoredSpan

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Span.SpanKind in opentelemetry/proto/trace/v1/trace.proto, in Jaeger's words.
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUS_ERROR = 2
ERROR_WORDS = {1: "false", STATUS_ERROR: "true"}  # a status that was never set is neither, as in Jaeger
PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class BadBodyError(ValueError):
    """The body is not what its content type says."""


class TooLargeError(ValueError):
    """The body is larger, unpacked, than what is allowed."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo `Content-Encoding`: gzip, deflate or none; raises BadBodyError and TooLargeError."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise BadBodyError(f"content encoding {encoding!r} is not supported")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # a gzip or zlib header, whichever there is
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadBodyError(str(error)) from error
    if len(unpacked) > limit:
        raise TooLargeError
    if not unpacker.eof:
        raise BadBodyError("the compressed body ends early")
    return unpacked


def decode(body: bytes, content_type: str) -> tuple[list[StoredSpan], int]:
    """The spans of an ExportTraceServiceRequest, and how many were refused for their ids; raises BadBodyError."""
    request = _from_json(body) if content_type == JSON else _from_protobuf(body)
    spans = list(_spans(request))
    good = [span for span in spans if span is not None]
    return good, len(spans) - len(good)


def encode_response(content_type: str, refused: int, message: str) -> bytes:
    """ExportTraceServiceResponse in the request's own encoding, as OTLP/HTTP demands."""
    if content_type == JSON:
        return orjson.dumps({"partialSuccess": {"rejectedSpans": str(refused), "errorMessage": message} if refused else {}})
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - see the module's docstring
        ExportTracePartialSuccess,
        ExportTraceServiceResponse,
    )

    if not refused:
        return ExportTraceServiceResponse().SerializeToString()
    partial = ExportTracePartialSuccess(rejected_spans=refused, error_message=message)
    return ExportTraceServiceResponse(partial_success=partial).SerializeToString()


def resource_spans(spans: Iterable[StoredSpan]) -> list[dict[str, Any]]:
    """Spans as OTLP JSON's `resourceSpans`, grouped by resource and scope."""
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope  # noqa: PLC0415 - see the module's docstring
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource  # noqa: PLC0415 - as above
    from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: PLC0415 - as above

    grouped: dict[bytes, dict[bytes, list[orjson.Fragment]]] = {}
    for span in spans:
        # As text at once: the dictionaries of a large answer, kept to its end, cost three times their making in garbage collection.
        body = orjson.Fragment(orjson.dumps(otlp_json.span_json(Span.FromString(span.body))))
        grouped.setdefault(span.resource, {}).setdefault(span.scope, []).append(body)
    return [
        {
            "resource": otlp_json.resource_json(Resource.FromString(resource)),
            "scopeSpans": [
                {"scope": otlp_json.scope_json(InstrumentationScope.FromString(scope)), "spans": bodies} for scope, bodies in scopes.items()
            ],
        }
        for resource, scopes in grouped.items()
    ]


def attributes_of(span: StoredSpan) -> frozenset[tuple[str, str]]:
    """Every attribute of span, scope, resource and events as text, the way a search compares them; `error` is the status."""
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope  # noqa: PLC0415 - see the module's docstring
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource  # noqa: PLC0415 - as above
    from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: PLC0415 - as above

    message = Span.FromString(span.body)
    owners: tuple[Any, ...] = (Resource.FromString(span.resource), InstrumentationScope.FromString(span.scope), message, *message.events)
    found = {(item.key, otlp_json.text_of(item.value)) for owner in owners for item in owner.attributes if item.key != "error"}
    status = ERROR_WORDS.get(message.status.code)
    return frozenset(found | {("error", status)} if status else found)


def _from_protobuf(body: bytes) -> "ExportTraceServiceRequest":
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - see the module's docstring
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - as above
        ExportTraceServiceRequest,
    )

    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise BadBodyError(str(error)) from error


def _from_json(body: bytes) -> "ExportTraceServiceRequest":
    from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415 - see the module's docstring
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - as above
        ExportTraceServiceRequest,
    )

    try:
        document = orjson.loads(body)
        for span in _json_spans(document):
            _rewrite_ids(span, _hex_to_base64)
        return ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (orjson.JSONDecodeError, ParseError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise BadBodyError(str(error)) from error


def _json_spans(document: Any) -> Iterator[dict[str, Any]]:
    for resource in document.get("resourceSpans") or []:
        for scope in resource.get("scopeSpans") or []:
            yield from scope.get("spans") or []


def _rewrite_ids(span: dict[str, Any], rewrite: Any) -> None:
    """OTLP JSON has ids in hex where protobuf's own JSON has base64."""
    for owner in (span, *(span.get("links") or [])):
        for key in ("traceId", "spanId", "parentSpanId"):
            if owner.get(key):
                owner[key] = rewrite(owner[key])


def _hex_to_base64(text: str) -> str:
    return base64.b64encode(binascii.unhexlify(text)).decode()


def _spans(request: "ExportTraceServiceRequest") -> Iterator[StoredSpan | None]:
    for group in request.resource_spans:
        service = next((a.value.string_value for a in group.resource.attributes if a.key == "service.name"), "") or "unknown_service"
        resource = group.resource.SerializeToString(deterministic=True)
        for scoped in group.scope_spans:
            scope = scoped.scope.SerializeToString(deterministic=True)
            for span in scoped.spans:
                yield _span(span, service, resource, scope)


def _span(message: "Span", service: str, resource: bytes, scope: bytes) -> StoredSpan | None:
    """None for ids that are not an id: 16 and 8 bytes, not all zero (trace.proto)."""
    if len(message.trace_id) != 16 or len(message.span_id) != 8 or not any(message.trace_id) or not any(message.span_id):
        return None
    return StoredSpan(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex() if any(message.parent_span_id) else "",
        name=sys.intern(message.name),
        service=sys.intern(service),
        kind=KINDS[message.kind] if message.kind < len(KINDS) else KINDS[0],
        start=message.start_time_unix_nano,
        end=max(message.start_time_unix_nano, message.end_time_unix_nano),
        error=message.status.code == STATUS_ERROR,
        body=message.SerializeToString(),
        resource=resource,
        scope=scope,
    )
