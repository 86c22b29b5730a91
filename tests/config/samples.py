"""For any message, one JSON document with every field set: what tests that walk all fields start from."""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from devmesh.config.istio_types import json_name

# Fields whose text has a shape.
TEXT = {
    "host": "reviews", "targetHost": "example.com", "uri": "/a", "scheme": "http", "authority": "example.com", "regex": "a.*",
    "protocol": "HTTP", "grpcStatus": "UNAVAILABLE", "retryOn": "5xx", "allowMethods": "GET", "bytes": "aGk=", "bind": "10.0.0.1",
    "exportTo": "*", "gateways": "mesh", "hosts": "reviews.example.com", "sniHosts": "reviews.example.com", "method": "GET", "data": "aGk=",
}  # fmt: skip
NUMBERS = {
    "httpStatus": 503,
    "status": 503,
    "redirectCode": 301,
    "tableSize": 65537,
    "port": 80,
    "number": 80,
    "targetPort": 80,
    "weight": 100,
}


def sample(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: _value(field.annotation, field.alias or name, field.metadata) for name, field in _chosen(model)}


def models(model: type[BaseModel], seen: frozenset[type[BaseModel]] = frozenset()) -> Iterator[type[BaseModel]]:
    """The message and all messages inside it, each once per way down."""
    yield model
    for field in model.model_fields.values():
        inner = message_in(field.annotation)
        if inner is not None and inner not in seen:
            yield from models(inner, seen | {model})


def message_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := message_in(one))), None)


def _chosen(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """All fields, of each oneof the first."""
    left_out = {name for group in getattr(model, "oneofs", ()) for name in group[1:]}
    return ((name, field) for name, field in model.model_fields.items() if name not in left_out)


def _value(annotation: Any, name: str, metadata: Any = ()) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType, tuple):
        first = _value(arguments[0], name, metadata)
        return [first] if origin is tuple else first
    if origin is dict:
        key = "80" if "int" in str(arguments[0]) else "x-name"
        return {key: _value(arguments[1], name)}
    if origin is Literal:
        return arguments[-1]
    if hasattr(annotation, "__metadata__"):
        return _value(annotation.__origin__, name, annotation.__metadata__)
    inner = message_in(annotation)
    return sample(inner) if inner else _scalar(annotation, name, metadata)


def _scalar(annotation: Any, name: str, metadata: Any) -> Any:
    if annotation is bool:
        return True
    if annotation is float:
        return "1s" if any("millisecond" in str(one) or "zero" in str(one) for one in metadata) else 50.0
    if annotation is int:
        return NUMBERS.get(name, 7)
    return TEXT.get(name, "a")


def every_field(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, str]]:
    """(message, attribute, JSON name) of every field in reach."""
    for one in dict.fromkeys(models(model)):
        for name in one.model_fields:
            yield one, name, json_name(name)
