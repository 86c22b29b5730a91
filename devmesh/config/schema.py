"""One spec against its model, each mistake in words: path, rule, value, and what was probably meant."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from devmesh.config.model import Diagnostic
from devmesh.config.yaml import Document

SCHEMA = "IST0106"
"""Istio's SchemaValidationError."""
Location = Sequence[int | str]
_NAMES_OF_TYPES = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "nothing",
}
_WANTED = {
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def validate(
    document: Document, model: type[BaseModel] | None, spec: Any, prefix: str = "spec"
) -> tuple[BaseModel | None, list[Diagnostic]]:
    """Parse a spec strictly, as the Kubernetes API server does (types as in the schema, JSON names only); None without a model."""
    if model is None:
        return None, []
    if not isinstance(spec, dict):
        return None, [Diagnostic("error", SCHEMA, document.position(prefix), f"{prefix} must be a mapping")]
    try:
        return model.model_validate_json(json.dumps(_without_nulls(spec, model)), strict=True, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, [_diagnostic(document, model, dict(one), prefix) for one in error.errors(include_url=False)]


def _diagnostic(document: Document, model: type[BaseModel], error: dict[str, Any], prefix: str) -> Diagnostic:
    location = [step for step in error["loc"] if step != "[key]"]
    path = path_of(location, prefix)
    where, kind, value = document.position(path), error["type"], error["input"]
    if kind == "extra_forbidden":
        return Diagnostic("error", SCHEMA, where, f'unknown field "{path}"', suggest(str(location[-1]), fields_at(model, location[:-1])))
    if kind == "literal_error":
        allowed = [one.strip("'") for one in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        message = f"{path}: {_shown(value)} is not one of {', '.join(allowed)}"
        return Diagnostic("error", SCHEMA, where, message, suggest(str(value), allowed))
    if kind in _WANTED:
        return _wrong_type(document, path, _WANTED[kind], value)
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return Diagnostic(
        "error", SCHEMA, where, f"{path}{': ' * bool(path)}{text}" + ("" if kind == "value_error" else f", not {_shown(value)}")
    )


def _wrong_type(document: Document, path: str, wanted: str, value: Any) -> Diagnostic:
    hint = None
    if wanted == "text" and not isinstance(value, dict | list):
        hint = f"put it in quotes: {_quoted(value)}"
    elif isinstance(value, str) and wanted in ("a whole number", "a number", "true or false"):
        hint = "take the quotes off"
    elif wanted == "a list":
        hint = 'begin each item with "- "'
    return Diagnostic("error", SCHEMA, document.position(path), f"{path} must be {wanted}, not {_shown(value)}", hint)


def _quoted(value: Any) -> str:
    return json.dumps(str(value).lower() if isinstance(value, bool) else str(value), ensure_ascii=False)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | type(None)):
        return _NAMES_OF_TYPES[type(value)]
    return json.dumps(value, ensure_ascii=False)


def path_of(location: Location, prefix: str) -> str:
    path = prefix
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")


def json_fields(model: type[BaseModel]) -> dict[str, Any]:
    """Give a model's fields by JSON name, with their annotations."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Give the JSON names allowed at a place."""
    current = model
    for step in location:
        inner = model_in(json_fields(current).get(str(step)))
        current = inner or current
    return list(json_fields(current))


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the message inside `tuple[Message, ...]`, `dict[str, Message]` or `Message | None`."""
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := model_in(one))), None)


def _without_nulls(value: Any, model: type[BaseModel]) -> Any:
    """Drop `field: null`, which JSON for protobuf takes as not given; in maps and lists null stays, and is an error."""
    if not isinstance(value, dict):
        return value
    fields = json_fields(model)
    return {key: _inner(one, fields.get(key)) for key, one in value.items() if one is not None or key not in fields}


def _inner(value: Any, annotation: Any) -> Any:
    model = model_in(annotation)
    if model is None:
        return _whole(value) if _takes_int(annotation) else value
    if isinstance(value, list):
        return [_without_nulls(one, model) for one in value]
    if isinstance(value, dict) and get_origin(annotation) is dict:
        return {key: _without_nulls(one, model) for key, one in value.items()}
    return _without_nulls(value, model)


def _takes_int(annotation: Any) -> bool:
    return annotation is int or any(map(_takes_int, get_args(annotation)))


def _whole(value: Any) -> Any:
    """Take 80.0 for 80: to JSON and Kubernetes they are one number."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Say `did you mean "x"?` when one of the known words is close."""
    folded = {one.lower(): one for one in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f'did you mean "{folded[close[0]]}"?' if close else None
