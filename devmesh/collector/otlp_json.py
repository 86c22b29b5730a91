"""Protobuf's messages of a trace as OTLP JSON: ids in hex, enums as numbers, 64-bit numbers as text, what is empty left out.

Written out by hand: google.protobuf's own `MessageToDict` takes five times as long and knows neither hex ids nor what a search compares.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = dict[str, Any]


def span_json(span: Any) -> Json:
    """A Span; `status` is always there, as Jaeger answers it."""
    found: Json = {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex(), "name": span.name, "kind": span.kind}
    if any(span.parent_span_id):
        found["parentSpanId"] = span.parent_span_id.hex()
    if span.trace_state:
        found["traceState"] = span.trace_state
    if span.flags:
        found["flags"] = span.flags
    found["startTimeUnixNano"], found["endTimeUnixNano"] = str(span.start_time_unix_nano), str(span.end_time_unix_nano)
    _add(found, "attributes", span.attributes, attribute_json)
    _add(found, "events", span.events, _event)
    _add(found, "links", span.links, _link)
    for name, count in (
        ("droppedAttributesCount", span.dropped_attributes_count),
        ("droppedEventsCount", span.dropped_events_count),
        ("droppedLinksCount", span.dropped_links_count),
    ):
        if count:
            found[name] = count
    found["status"] = _status(span.status)
    return found


def resource_json(resource: Any) -> Json:
    found: Json = {}
    _add(found, "attributes", resource.attributes, attribute_json)
    return found


def scope_json(scope: Any) -> Json:
    found: Json = {name: text for name, text in (("name", scope.name), ("version", scope.version)) if text}
    _add(found, "attributes", scope.attributes, attribute_json)
    return found


def attribute_json(attribute: Any) -> Json:
    if found := value_json(attribute.value):
        return {"key": attribute.key, "value": found}
    return {"key": attribute.key, "value": {}} if attribute.HasField("value") else {"key": attribute.key}


def value_json(value: Any) -> Json:
    """An AnyValue; empty when none is set."""
    kind = value.WhichOneof("value")
    if kind == "string_value":  # nine of ten
        return {"stringValue": value.string_value}
    convert = _VALUES.get(kind)
    return convert(value) if convert else {}


def text_of(value: Any) -> str:
    """An AnyValue as a search compares it."""
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    return str(getattr(value, kind)) if kind in ("string_value", "int_value", "double_value") else ""


def _double(number: float) -> float | str:
    """JSON has no words for these; protobuf's mapping writes them as text."""
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


_VALUES: Mapping[str, Callable[[Any], Json]] = {
    "bool_value": lambda value: {"boolValue": value.bool_value},
    "int_value": lambda value: {"intValue": str(value.int_value)},
    "double_value": lambda value: {"doubleValue": _double(value.double_value)},
    "bytes_value": lambda value: {"bytesValue": base64.b64encode(value.bytes_value).decode()},
    "array_value": lambda value: {"arrayValue": {"values": [value_json(item) for item in value.array_value.values]}},
    "kvlist_value": lambda value: {"kvlistValue": {"values": [attribute_json(item) for item in value.kvlist_value.values]}},
}


def _add(found: Json, name: str, items: Iterable[Any], convert: Callable[[Any], Json]) -> None:
    if converted := [convert(item) for item in items]:
        found[name] = converted


def _event(event: Any) -> Json:
    found: Json = {"timeUnixNano": str(event.time_unix_nano), "name": event.name}
    _add(found, "attributes", event.attributes, attribute_json)
    if event.dropped_attributes_count:
        found["droppedAttributesCount"] = event.dropped_attributes_count
    return found


def _link(link: Any) -> Json:
    found: Json = {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex()}
    if link.trace_state:
        found["traceState"] = link.trace_state
    if link.flags:
        found["flags"] = link.flags
    _add(found, "attributes", link.attributes, attribute_json)
    if link.dropped_attributes_count:
        found["droppedAttributesCount"] = link.dropped_attributes_count
    return found


def _status(status: Any) -> Json:
    found: Json = {}
    if status.message:
        found["message"] = status.message
    if status.code:
        found["code"] = status.code
    return found
