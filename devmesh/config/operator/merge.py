"""Documents over documents, and `--set path=value` over both, as istioctl does it (istio/operator/pkg/values: MergeFrom, SetPaths)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from devmesh.errors import UsageError

Json = dict[str, Any]
Step = str | int | tuple[str, str]
"""One step of a path: a key, a list index, or `[key:value]`, the list's item that has this value."""
# What istioctl never takes for a number: versions, and environment variables.
ALWAYS_TEXT = ("tag", "values.global.tag", "compatibilityVersion", "values.compatibilityVersion")
ALWAYS_TEXT_BELOW = ("meshConfig.defaultConfig.proxyMetadata.", "values.meshConfig.defaultConfig.proxyMetadata.")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
# strconv.ParseBool's words, but for 1 and 0, which are numbers before that.
_BOOLEANS = {**dict.fromkeys(("t", "T", "true", "True", "TRUE"), True), **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False)}
DUMP = "devmesh profile dump shows what there is"
_DOT = re.compile(r"(?<!\\)\.")


@dataclass(frozen=True, slots=True)
class SetFlag:
    """`--set`: `text` is the path as it was written."""

    text: str
    steps: tuple[Step, ...]
    value: Any

    @staticmethod
    def parse(flag: str) -> SetFlag:
        """Raises UsageError for a flag without a value, and for a path that is none."""
        text, equals, value = (part.strip() for part in flag.partition("="))
        if not equals or not text:
            raise UsageError(f"--set {flag}: it must be PATH=VALUE", "--set meshConfig.accessLogFile=/dev/stdout")
        always = text in ALWAYS_TEXT or text.startswith(ALWAYS_TEXT_BELOW)
        return SetFlag(text, steps_of(text), value if always else typed(value))


def steps_of(path: str) -> tuple[Step, ...]:
    r"""`a.b[0].c\.d` -> ("a", "b", 0, "c.d")."""
    steps: list[Step] = []
    for part in _DOT.split(path):
        word = part.replace("\\.", ".")
        name, bracket, rest = word.partition("[")
        if name:
            steps.append(name)
        if bracket:
            steps.append(_in_brackets(f"[{rest}", path))
    if not steps or not isinstance(steps[0], str):
        raise UsageError(f"--set {path}: a path begins with a key", "--set meshConfig.accessLogFile=/dev/stdout")
    return tuple(steps)


def _in_brackets(word: str, path: str) -> Step:
    inner = word[1:-1]
    if word.endswith("]"):
        if _INT.fullmatch(inner):
            return int(inner)
        key, colon, value = inner.partition(":")
        if colon and key:
            return key, value
    raise UsageError(f"--set {path}: {word} is neither [index] nor [key:value]", "--set components.egressGateways[0].enabled=true")


def typed(value: str) -> Any:
    r"""A number, a boolean, or text in which `\,` is a comma."""
    if _INT.fullmatch(value):
        return int(value)
    if _FLOAT.fullmatch(value):
        return float(value)
    return _BOOLEANS[value] if value in _BOOLEANS else value.replace("\\,", ",")


def set_path(document: Json, flag: SetFlag) -> None:
    """Change the document in place; an index behind a list's end appends. Raises UsageError where the path meets something else."""
    _set(document, flag.steps, flag)


def _set(base: Any, steps: tuple[Step, ...], flag: SetFlag) -> None:
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if not isinstance(base, dict):
            raise UsageError(f'--set {flag.text}: "{step}" would be a key of something that is no mapping', DUMP)
        base[step] = _changed(base.get(step), rest, flag)
        return
    if not isinstance(base, list):
        raise UsageError(f"--set {flag.text}: {_shown(step)} is an item of something that is no list", DUMP)
    index = _index(base, step, flag)
    if index is None:
        base.append(_changed(None, rest, flag))
    else:
        base[index] = _changed(base[index], rest, flag)


def _changed(present: Any, rest: tuple[Step, ...], flag: SetFlag) -> Any:
    if not rest:
        return flag.value
    if present is None:
        present = {} if isinstance(rest[0], str) else []
    _set(present, rest, flag)
    return present


def _index(items: list[Any], step: int | tuple[str, str], flag: SetFlag) -> int | None:
    """None: append."""
    if isinstance(step, int):
        return step if 0 <= step < len(items) else None
    key, value = step
    for index, item in enumerate(items):
        if isinstance(item, Mapping) and str(item.get(key)) == value:
            return index
    raise UsageError(
        f"--set {flag.text}: no item has {key} {value}: a list of yours takes the place of the profile's",
        f"--set {flag.text.partition('[')[0].rstrip('.')}[0].{key}={value} first",
    )


def _shown(step: Step) -> str:
    return f"[{step[0]}:{step[1]}]" if isinstance(step, tuple) else f"[{step}]"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """Mappings key by key, everything else (lists, too) replaced as a whole."""
    out = dict(deepcopy(dict(base)))
    for key, value in over.items():
        present = out.get(key)
        both = isinstance(present, dict) and isinstance(value, Mapping)
        out[key] = merged(present, value) if both else deepcopy(value)  # type: ignore[arg-type] # checked above
    return out
