"""The files that a compose file is made of: its override, what it includes, what its services extend; and where in them a value stands.

What they mean together is compose's business: `docker compose config` says it. This module only finds places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.config.file_names import COMPOSE_NAMES, OVERRIDE_NAMES
from devmesh.config.interpolation import interpolate
from devmesh.config.model import SourcePosition
from devmesh.config.yaml import Document, read_documents

MAX_DEPTH = 16  # files that lead to files; compose refuses a circle itself


def override_of(path: Path) -> Path | None:
    """The override that compose merges into a file that has its default name."""
    beside = (path.parent / name for name in OVERRIDE_NAMES)
    return next((one for one in beside if one.is_file()), None) if path.name in COMPOSE_NAMES else None


def needs_compose(path: Path, value: Any) -> bool:
    """Whether what a file means stands in other files too."""
    services = value.get("services") if isinstance(value, dict) else None
    extending = isinstance(services, dict) and any(isinstance(one, dict) and "extends" in one for one in services.values())
    return extending or (isinstance(value, dict) and "include" in value) or override_of(path) is not None


@dataclass(frozen=True, slots=True)
class Sources:
    """Finds the line of a value, by its path, in whichever file gives it."""

    main: Document
    variables: Mapping[str, str]

    def position(self, path: str = "") -> SourcePosition:
        """Where it stands; the nearest thing around it where compose made the value."""
        found = [(len(inner) - len(_known(document, inner)), document, inner) for document, inner in self._places(self.main, path)]
        _, document, inner = min(found, key=lambda one: one[0])
        return document.position(inner)

    def _places(self, document: Document, path: str, depth: int = 0) -> Iterator[tuple[Document, str]]:
        yield document, path
        if depth == MAX_DEPTH:
            return
        folder = Path(document.file).parent
        service, rest = _service_of(document, path)
        extends = service.get("extends") if isinstance(service, dict) else None
        if extends is not None:
            yield from self._extended(document, extends, rest, depth)
        for name in self._included(document, depth):
            other = read(folder / name)
            if other is not None:
                yield from self._places(other, path, depth + 1)

    def _extended(self, document: Document, extends: Any, rest: str, depth: int) -> Iterator[tuple[Document, str]]:
        given = extends if isinstance(extends, dict) else {"service": extends}
        file = self._filled(given.get("file"))
        other = read(Path(document.file).parent / file) if file else document
        if other is not None:
            yield from self._places(other, f"services.{given.get('service')}{rest}", depth + 1)

    def _included(self, document: Document, depth: int) -> Iterator[str]:
        override = override_of(Path(document.file)) if depth == 0 else None
        if override is not None:
            yield override.name
        given = document.value.get("include") if isinstance(document.value, dict) else None
        for one in given if isinstance(given, list) else ():
            paths = one.get("path") if isinstance(one, dict) else one
            for path in paths if isinstance(paths, list) else [paths]:
                yield self._filled(path)

    def _filled(self, text: Any) -> str:
        return str(interpolate(str(text), self.variables, lambda *_: None)) if text else ""


# What compose calls the things that its messages are about; lines it names in a file that is no YAML only.
_FIELD = re.compile(
    r"\b((?:services|networks|volumes|secrets|configs)\.[\w.-]+[\w-])(?:.*?additional propert(?:y|ies) '?([\w-]+))?", re.IGNORECASE
)
_ENV_FILE = re.compile(r"env file (\S+) not found")
_SERVICE = re.compile(r'service "([^"]+)"(?: (?:refers to undefined (?P<kind>network|volume|secret|config)|(?P<needs>depends on))\b)?')


def place_of(file: Path, words: str, variables: Mapping[str, str]) -> SourcePosition | None:
    """Where a file says what compose complains about in `words`; None where they name no place that we know."""
    try:
        documents, wrong = read_documents(file.read_text(encoding="utf-8"), str(file), compose=True)
    except (OSError, UnicodeDecodeError):
        return None
    if wrong:
        return wrong[0].where
    missing = _ENV_FILE.search(words)
    path = _env_file(documents[0], missing[1]) if missing and documents else _path_in(words)
    return Sources(documents[0], variables).position(path) if len(documents) == 1 and path else None


def _env_file(document: Document, wanted: str) -> str:
    """The service that names it; "" when an included file's does."""
    services = document.value.get("services") if isinstance(document.value, dict) else None
    for name, service in services.items() if isinstance(services, dict) else ():
        given = service.get("env_file") if isinstance(service, dict) else None
        for one in given if isinstance(given, list) else [given]:
            path = one.get("path") if isinstance(one, dict) else one
            if path and Path(document.file).parent / str(path) == Path(wanted):
                return f"services.{name}.env_file"
    return ""


def _path_in(words: str) -> str:
    if found := _FIELD.search(words):
        path = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", found[1])
        return f"{path}.{found[2]}" if found[2] else path
    if found := _SERVICE.search(words):
        inner = "depends_on" if found["needs"] else f"{found['kind']}s" if found["kind"] else ""
        return f"services.{found[1]}.{inner}".rstrip(".")
    return ""


def read(path: Path) -> Document | None:
    """A file that can be read; compose names what is wrong with one that cannot, and fetches those elsewhere (git, OCI)."""
    try:
        documents, _ = read_documents(path.read_text(encoding="utf-8"), str(path), compose=True)
    except (OSError, UnicodeDecodeError):
        return None
    return documents[0] if len(documents) == 1 else None


def _known(document: Document, path: str) -> str:
    while path and path not in document.lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return path


def _service_of(document: Document, path: str) -> tuple[Any, str]:
    """(the service that a path leads into, the rest of the path). A service's name may have dots in it."""
    services = document.value.get("services") if isinstance(document.value, dict) else None
    for name, service in services.items() if isinstance(services, dict) else ():
        head = f"services.{name}"
        if path == head or path.startswith((f"{head}.", f"{head}[")):
            return service, path[len(head) :]
    return None, ""
