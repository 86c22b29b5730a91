"""The words every part of the configuration shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Severity = Literal["error", "warning", "info"]
COMPILER_FAILED = "DM9999"  # ours to mend, not the user's


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """What makes a resource the same resource: its version is not part of it."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    name: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class SourcePosition:
    """A place in a file; lines and columns count from 1, 0 is "not known"."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])


@dataclass(frozen=True, slots=True)
class Diagnostic:
    severity: Severity
    code: str
    where: SourcePosition | None
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.severity} [{self.code}] {self.message}"

    def to_json(self) -> dict[str, Any]:
        where = self.where
        return {
            "severity": self.severity,
            "code": self.code,
            "file": where.file if where else None,
            "line": where.line if where else None,
            "column": where.column if where else None,
            "message": self.message,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Resource:
    """One document. `spec` is None for a kind that is known and not implemented; `order` is its place among all documents read."""

    key: ResourceKey
    api_version: str
    meta: ObjectMeta
    spec: BaseModel | None
    raw: Mapping[str, Any]
    file: str
    lines: Mapping[str, int] = field(default_factory=dict)
    owner: str = "apply"
    order: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)

    def position(self, path: str = "") -> SourcePosition:
        """Give the place of `path` ("spec.http[0].match[1]"), or of the closest thing around it that is known."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return SourcePosition(self.file, self.lines.get(path, 0), self.columns.get(path, 0))
