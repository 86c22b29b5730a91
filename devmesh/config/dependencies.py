"""Whom a service waits for: `depends_on` in both syntaxes, and what compose takes for one (compose-go, loader/normalize.go)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from devmesh.config.model import SourcePosition
from devmesh.config.schema import suggest

STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
CONDITIONS = (STARTED, HEALTHY, COMPLETED)
Complain = Callable[[str, str, str | None], None]
"""Takes the path of a mistake, what it is, and a hint."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """`restart`: whoever depends is restarted with it, by an explicit restart. `path` is where it is written, `position` that in the file.

    `implied`: by what is said elsewhere than in `depends_on`.
    """

    name: str
    condition: str = STARTED
    required: bool = True
    restart: bool = False
    path: str = ""
    position: SourcePosition | None = None
    implied: bool = False

    def __str__(self) -> str:
        """What is waited for, in words."""
        return {HEALTHY: f"{self.name} to be healthy", COMPLETED: f"{self.name} to complete"}.get(self.condition, f"{self.name} to start")


def read_dependencies(service: Mapping[str, Any], path: str, complain: Complain) -> tuple[Dependency, ...]:
    """Of one service: what its `depends_on` says, then what it implies elsewhere."""
    found = {one.name: one for one in _implied(service, path)}
    found |= {one.name: one for one in _written(service.get("depends_on"), f"{path}.depends_on", complain)}
    return tuple(found.values())


def _written(value: Any, path: str, complain: Complain) -> Iterator[Dependency]:
    if isinstance(value, list):
        for index, name in enumerate(value):
            yield Dependency(str(name), path=f"{path}[{index}]")
    elif isinstance(value, dict):
        for name, settings in value.items():
            yield _long(str(name), settings, f"{path}.{name}", complain)
    elif value is not None:
        complain(path, f"{path} must be a list of names", None)


def _long(name: str, settings: Any, path: str, complain: Complain) -> Dependency:
    if not isinstance(settings, dict):
        complain(path, f"{path} must be a mapping", f"write {name}: {{condition: {STARTED}}}")
        return Dependency(name, path=path)
    for key in settings:
        if key not in ("condition", "required", "restart") and not str(key).startswith("x-"):
            complain(f"{path}.{key}", f'unknown field "{path}.{key}"', suggest(str(key), ("condition", "required", "restart")))
    condition = settings.get("condition")
    if condition not in CONDITIONS:
        said = "is missing" if condition is None else f'is "{condition}"'
        hint = suggest(str(condition), CONDITIONS) or f"it is one of {', '.join(CONDITIONS)}"
        complain(f"{path}.condition", f"{path}.condition {said}", hint)
        condition = STARTED
    required = _flag(settings, "required", path, complain, default=True)
    return Dependency(name, condition, required, _flag(settings, "restart", path, complain, default=False), path)


def _flag(settings: Mapping[str, Any], key: str, path: str, complain: Complain, *, default: bool) -> bool:
    given = settings.get(key, default)
    if not isinstance(given, bool):
        complain(f"{path}.{key}", f"{path}.{key} must be true or false, not {given!r}", None)
        return default
    return given


def _implied(service: Mapping[str, Any], path: str) -> Iterator[Dependency]:
    """Who links to a service, or shares its namespaces or volumes, starts after it."""
    for key in ("links", "volumes_from"):
        given = service.get(key)
        for text in given if isinstance(given, list) else ():
            name = str(text).partition(":")[0]
            if name != "container":  # one outside of the project
                yield Dependency(name, restart=key == "links", path=f"{path}.{key}", implied=True)
    for key in ("network_mode", "ipc", "pid"):
        kind, _, name = str(service.get(key) or "").partition(":")
        if kind == "service":
            yield Dependency(name, restart=True, path=f"{path}.{key}", implied=True)
