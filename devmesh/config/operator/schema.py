"""What Istio knows: every field of IstioOperator, MeshConfig and the charts' values, with its type.

`fields.json` lists the names and types of Istio's own messages (istio/api mesh/v1alpha1, istio/istio operator/pkg/apis): `"@Name"` a
message, `"=Name"` an enum, `["type"]` a list, `{"*": "type"}` a mapping with free keys, `"any"` what is Kubernetes' own or free.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.config.durations import parse_duration
from devmesh.config.model import Diagnostic, SourcePosition
from devmesh.config.schema import SCHEMA, suggest

SPEC, VALUES = "@IstioOperatorSpec", "@values.Values"
Type = Any  # text, or a list or mapping of one type
Place = Callable[[str], SourcePosition]
ADDONS = ("grafana", "jaeger", "kiali", "loki", "prometheus", "tracing", "zipkin")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that somebody set. `path` begins below `spec`, list indices as `[]`: `components.ingressGateways[].enabled`."""

    path: str
    value: Any
    where: SourcePosition


@functools.cache
def tables() -> tuple[Mapping[str, Mapping[str, Type]], Mapping[str, list[str]]]:
    value = json.loads(Path(__file__).with_name("fields.json").read_text())
    return value["types"], value["enums"]


def check(value: Any, kind: Type, path: str, place: Place, inner: str = "") -> Iterator[Setting | Diagnostic]:
    """Every setting in `value`, and an error for each unknown key and wrong type.

    `path` is how messages name it, `inner` the path below `spec`; `place` knows where a path was written.
    """
    if value is None:
        return  # JSON for protobuf takes null as not given
    if isinstance(kind, list):
        yield from _list(value, kind[0], path, place, inner)
    elif isinstance(kind, dict):
        yield from _mapping(value, kind["*"], path, place, inner)
    elif kind.startswith("@"):
        yield from _message(value, kind[1:], path, place, inner)
    else:
        problem = _wrong(value, kind)
        yield Setting(inner, value, place(path)) if problem is None else Diagnostic("error", SCHEMA, place(path), *_words(path, problem))


def _words(path: str, problem: tuple[str, str | None]) -> tuple[str, str | None]:
    return f"{path} {problem[0]}", problem[1]


def _message(value: Any, name: str, path: str, place: Place, inner: str) -> Iterator[Setting | Diagnostic]:
    fields = tables()[0][name]
    if not isinstance(value, Mapping):
        yield Diagnostic("error", SCHEMA, place(path), f"{path} must be a mapping, not {_shown(value)}")
        return
    for key, one in value.items():
        at, below = _join(path, key), _join(inner, key)
        if key in fields:
            yield from check(one, fields[key], at, place, below)
        else:
            yield Diagnostic("error", SCHEMA, place(at), f'unknown field "{at}"', suggest(key, fields))


def _mapping(value: Any, kind: Type, path: str, place: Place, inner: str) -> Iterator[Setting | Diagnostic]:
    if not isinstance(value, Mapping):
        yield Diagnostic("error", SCHEMA, place(path), f"{path} must be a mapping, not {_shown(value)}")
        return
    for key, one in value.items():
        if inner == "addonComponents" and key not in ADDONS:
            yield Diagnostic("error", SCHEMA, place(_join(path, key)), f'unknown addon "{key}"', suggest(key, ADDONS))
            continue
        yield from check(one, kind, _join(path, key), place, _join(inner, key))


def _list(value: Any, kind: Type, path: str, place: Place, inner: str) -> Iterator[Setting | Diagnostic]:
    if not isinstance(value, list):
        yield Diagnostic("error", SCHEMA, place(path), f"{path} must be a list, not {_shown(value)}")
        return
    for index, one in enumerate(value):
        yield from check(one, kind, f"{path}[{index}]", place, f"{inner}[]")


def _wrong(value: Any, kind: str) -> tuple[str, str | None] | None:
    """What is wrong and a hint, as JSON for protobuf judges it; None when it fits."""
    if kind == "any":
        return None
    if kind.startswith("="):
        names = tables()[1][kind[1:]]
        fits = value in names or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names))
        return None if fits else (f"is {_shown(value)}, which is none of {', '.join(names)}", suggest(str(value), names))
    if kind == "duration":
        return _wrong_duration(value)
    wanted, fits = {
        "bool": ("true or false", isinstance(value, bool)),
        "string": ("text", isinstance(value, str)),
        "int": ("a whole number", _is_int(value)),
        "number": ("a number", isinstance(value, int | float) and not isinstance(value, bool)),
    }[kind]
    return None if fits else (f"must be {wanted}, not {_shown(value)}", None)


def _is_int(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.lstrip("-").isdecimal())


def _wrong_duration(value: Any) -> tuple[str, str | None] | None:
    try:
        parse_duration(value if isinstance(value, str) else json.dumps(value))
    except ValueError as error:
        return f"must be a duration: {error}", None
    return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return json.dumps(value, ensure_ascii=False, default=str)
