"""YAML as kubectl reads it (YAML 1.1 booleans, go-yaml's numbers), with the place of every key and everything wrong collected."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from devmesh.config.model import Diagnostic, SourcePosition

SYNTAX, DUPLICATE_KEY = "DM0001", "DM0002"
MAX_VALUES = 200_000
"""Values in one document: a chain of aliases multiplies ("billion laughs"), no hand-written file comes near."""
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_COMPOSE_BOOLEANS = {"true": True, "false": False}
_BOOLEANS = {"y": True, "yes": True, "on": True, "n": False, "no": False, "off": False, **_COMPOSE_BOOLEANS}


@dataclass(frozen=True, slots=True)
class Document:
    """`lines` and `columns` by path ("spec.http[0].match"); "" is the document itself."""

    value: Any
    file: str
    lines: dict[str, int] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    faulty: bool = False

    def position(self, path: str = "") -> SourcePosition:
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return SourcePosition(self.file, self.lines.get(path, 0), self.columns.get(path, 0))


def read_documents(text: str, file: str, *, compose: bool = False) -> tuple[list[Document], list[Diagnostic]]:
    """Read every document on its own, so that a mistake in one hides nothing in the others.

    kubectl takes a bare `yes` or `n` for a boolean (YAML 1.1); Docker Compose (`compose=True`) only `true` and `false`.
    """
    documents: list[Document] = []
    diagnostics: list[Diagnostic] = []
    for first_line, chunk in _chunks(text.removeprefix("\ufeff")):
        node = _compose(chunk, file, first_line, diagnostics)
        if node is None or (isinstance(node, ScalarNode) and _kind(node) == "null"):
            continue
        reader = _Reader(file, first_line, _COMPOSE_BOOLEANS if compose else _BOOLEANS)
        value = reader.read(node, "")
        diagnostics += reader.diagnostics
        documents.append(Document(value, file, reader.lines, reader.columns, bool(reader.diagnostics)))
    return documents, diagnostics


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    starts = [0, *(found.start() for found in _SEPARATOR.finditer(text))]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        chunk = text[start:end]
        # A chunk of nothing but comments and %directives belongs to the document after it.
        if any(line.strip() and not line.lstrip().startswith("#") and not line.startswith("%") for line in chunk.splitlines()):
            yield text.count("\n", 0, start), chunk


def _compose(chunk: str, file: str, first_line: int, diagnostics: list[Diagnostic]) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    try:
        node: Node | None = yaml.compose(chunk)
    except MarkedYAMLError as error:
        diagnostics.append(_syntax_error(error, chunk, file, first_line))
    except (YAMLError, ValueError, RecursionError) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        diagnostics.append(Diagnostic("error", SYNTAX, SourcePosition(file, first_line + 1), f"cannot be read as YAML: {message}"))
    else:
        return node
    return None


def _syntax_error(error: MarkedYAMLError, chunk: str, file: str, first_line: int) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    problem = str(error.problem or error.context).strip()
    context = f" ({error.context})" if error.problem and error.context else ""
    lines = chunk.splitlines()
    tab = line < len(lines) and "\t" in lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    hint = "indent with spaces: YAML allows no tab there" if tab else None
    if hint is None and "mapping values are not allowed" in problem:
        hint = "put the value in quotes, or mend the indentation of this line or the one above"
    where = SourcePosition(file, first_line + line + 1, column + 1)
    return Diagnostic("error", SYNTAX, where, f"cannot be read as YAML: {problem}{context}", hint)


class _Reader:
    """Turns one document's nodes into plain values and remembers where each came from."""

    def __init__(self, file: str, first_line: int, booleans: Mapping[str, bool]) -> None:
        self.file = file
        self.first_line = first_line
        self.booleans = booleans
        self.lines: dict[str, int] = {}
        self.columns: dict[str, int] = {}
        self.diagnostics: list[Diagnostic] = []
        self.values = 0
        self.open: list[Node] = []

    def read(self, node: Node, path: str) -> Any:
        self._place(path, node)
        self.values += 1
        if isinstance(node, ScalarNode):
            return scalar(node, self.booleans)
        if self.values > MAX_VALUES or any(node is one for one in self.open):
            self._report(node, SYNTAX, "an alias (*name) that contains itself or multiplies without end")
            return None
        self.open.append(node)
        value = self._mapping(node, path) if isinstance(node, MappingNode) else self._sequence(node, path)
        self.open.pop()
        return value

    def _sequence(self, node: Node, path: str) -> list[Any]:
        return [self.read(item, f"{path}[{index}]") for index, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, path: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if _kind(key_node) == "merge":
                merged |= self._merge(value_node, path)
                continue
            key = self._key(key_node)
            inner = f"{path}.{key}" if path else key
            line = self.first_line + key_node.start_mark.line + 1
            if key in seen:
                self._report(key_node, DUPLICATE_KEY, f'"{inner}" is given twice: first on line {seen[key]}, again here')
                continue
            seen[key] = line
            result[key] = self.read(value_node, inner)
            self._place(inner, key_node)
        return merged | result

    def _merge(self, node: Node, path: str) -> dict[str, Any]:
        """Read `<<: *base` or `<<: [*a, *b]`; of several the first wins."""
        parts = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in reversed(parts):
            value = self.read(part, path)
            merged |= value if isinstance(value, dict) else {}
        return merged

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            self._report(node, SYNTAX, "a key must be a plain word")
            return "?"
        value = scalar(node, self.booleans)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "null" if value is None else str(value)

    def _place(self, path: str, node: Node) -> None:
        self.lines[path] = self.first_line + node.start_mark.line + 1
        self.columns[path] = node.start_mark.column + 1

    def _report(self, node: Node, code: str, message: str) -> None:
        where = SourcePosition(self.file, self.first_line + node.start_mark.line + 1, node.start_mark.column + 1)
        self.diagnostics.append(Diagnostic("error", code, where, message))


def _kind(node: Node) -> str:
    """Give the last word of a tag: "tag:yaml.org,2002:int" -> "int"."""
    return (node.tag or "").rpartition(":")[2]


def _joined(text: str) -> str:
    """Make one character of a pair of surrogates: JSON writes two escapes, and YAML does not join them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _SURROGATE.search(text) else text


def scalar(node: ScalarNode, booleans: Mapping[str, bool]) -> Any:
    """Give a scalar the type go-yaml gives it: base 60 and timestamps, which YAML 1.1 has too, stay text."""
    text = _joined(node.value)
    kind = _kind(node)
    if kind == "null":
        return None
    if kind == "bool":
        return booleans.get(text.lower(), text)
    # Go reads 0o17, which YAML 1.1 does not know.
    octal = node.style is None and text.startswith("0o")
    if (kind == "int" or octal) and _INT.fullmatch(text):
        return _integer(text.replace("_", ""))
    if kind in ("int", "float") and _FLOAT.fullmatch(text):
        return float(text)
    if kind == "float" and text.lower().lstrip("+-") in (".inf", ".nan"):
        return float(text.replace(".", ""))
    return text


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    if digits.startswith("0") and digits.isdecimal() and len(digits) > 1:
        digits = f"0o{digits}"
    return int(digits, 0) * (-1 if text.startswith("-") else 1)
