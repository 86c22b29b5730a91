"""Compose's `${VAR}` in strings: the forms of the compose specification, and nothing else."""

import re
from collections.abc import Callable, Mapping
from typing import Any

# Braces may nest one level in a default: ${A:-${B}}.
_VARIABLE = re.compile(
    r"\$(?:\$|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:?[-?+])(?P<operand>(?:\$\{[^}]*\}|[^}])*))?\})"
)
Report = Callable[[str, str], None]


def interpolate(value: Any, variables: Mapping[str, str], report: Report, path: str = "") -> Any:
    """Substitute in every string below `value`; `report(path, message)` hears of `${VAR:?message}` without a value."""
    if isinstance(value, str):
        return _text(value, variables, report, path)
    if isinstance(value, list):
        return [interpolate(one, variables, report, f"{path}[{index}]") for index, one in enumerate(value)]
    if isinstance(value, dict):
        return {key: interpolate(one, variables, report, f"{path}.{key}" if path else key) for key, one in value.items()}
    return value


def _text(text: str, variables: Mapping[str, str], report: Report, path: str) -> str:
    def replace(found: re.Match[str]) -> str:
        name = found["plain"] or found["braced"]
        if name is None:
            return "$"
        given, operator = variables.get(name), found["operator"] or ""
        present = given is not None and (given != "" or not operator.startswith(":"))
        operand = found["operand"] or ""
        if operator.endswith("+"):
            return _text(operand, variables, report, path) if present else ""
        if present or not operator:
            return given or ""
        if operator.endswith("?"):
            report(path, f"{name} is not set: {operand}" if operand else f"{name} is not set")
        return _text(operand, variables, report, path) if operator.endswith("-") else ""

    return _VARIABLE.sub(replace, text)


def parse_env_file(text: str) -> dict[str, str]:
    """Read KEY=value lines as Compose does: comments, `export`, quotes; double quotes know backslash escapes."""
    result: dict[str, str] = {}
    for line in text.splitlines():
        found = re.match(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=\s*(.*?)\s*$", line)
        if found:
            result[found[1]] = _env_value(found[2])
    return result


def _env_value(text: str) -> str:
    if quoted := re.match(r"'([^']*)'", text):
        return quoted[1]
    if quoted := re.match(r'"((?:[^"\\]|\\.)*)"', text):
        return re.sub(r"\\(.)", lambda one: {"n": "\n", "t": "\t", "r": "\r"}.get(one[1], one[1]), quoted[1])
    return re.sub(r"(^|\s)#.*$", "", text).rstrip()
