"""What a file given with `-f` is: a compose file, an IstioOperator, or values of Istio's charts; told by what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.config.model import Diagnostic
from devmesh.config.operator.schema import SPEC, VALUES, Place, tables
from devmesh.config.schema import SCHEMA, suggest
from devmesh.config.yaml import Document, read_documents
from devmesh.errors import DevmeshError

GROUP, KIND = "install.istio.io", "IstioOperator"
COMPOSE_KEYS = frozenset({"services", "include", "networks", "volumes", "secrets", "configs", "version", "name", "models"})
HINT = (
    "-f takes a compose file (services:), an IstioOperator (kind: IstioOperator) or values of Istio's charts (meshConfig:, global:, pilot:)"
)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """`value` is what stands below `spec`; `prefix` is what leads there in the file, `kind` the type of `body`."""

    value: Mapping[str, Any]
    body: Any
    kind: str
    prefix: str
    inner: str
    place: Place
    profile: str | None


def sort_files(paths: Iterable[Path]) -> tuple[Path | None, list[SettingsFile]]:
    """The compose file, if one is among them, and the settings in order. Raises DevmeshError with the file and what it might be."""
    compose: list[Path] = []
    settings: list[SettingsFile] = []
    for path in paths:
        found = read_settings(path)
        if found is None:
            compose.append(path)
        else:
            settings.append(found)
    if len(compose) > 1:
        raise DevmeshError(f"{compose[0]} and {compose[1]} are both compose files, and a mesh has one", "merge them: docker compose config")
    return (compose[0] if compose else None), settings


def read_settings(path: Path) -> SettingsFile | None:
    """None for a compose file, which is read by others. Raises DevmeshError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DevmeshError(f"{path} cannot be read: {reason}", HINT) from error
    documents, problems = read_documents(text, str(path))
    if is_compose(documents):
        return None
    if problems:
        raise DevmeshError("\n".join(map(str, problems)), "mend the file")
    if len(documents) != 1:
        how_many = "is empty" if not documents else f"has {len(documents)} documents; settings are one a file"
        raise DevmeshError(f"{path} {how_many}", HINT)
    return settings_of(documents[0])


def is_compose(documents: Iterable[Document]) -> bool:
    """Compose's own keys, and none of Kubernetes'. What is broken YAML is compose's to explain if it has `services`."""
    values = [one.value for one in documents if isinstance(one.value, Mapping)]
    return any(
        ("services" in one or "include" in one or (one and one.keys() <= COMPOSE_KEYS)) and "apiVersion" not in one for one in values
    )


def settings_of(document: Document) -> SettingsFile:
    value = document.value
    if not isinstance(value, Mapping):
        raise DevmeshError(f"{document.position()}: neither a compose file nor settings: it is no mapping", HINT)
    if "apiVersion" in value or "kind" in value:
        return _operator(document, value)
    fields = tables()[0]
    known, spec = fields[VALUES[1:]], fields[SPEC[1:]]
    if not any(key in known for key in value):
        key = next(iter(value), "")
        where = document.position(key)
        if any(key in spec for key in value):
            raise DevmeshError(
                f'{where}: "{key}" belongs to an IstioOperator, and this file does not say that it is one',
                f"put it below spec:, after apiVersion: {GROUP}/v1alpha1 and kind: {KIND}",
            )
        near = suggest(key, [*known, *COMPOSE_KEYS])
        raise DevmeshError(f'{where}: neither a compose file nor settings: nobody knows "{key}"', near or HINT)
    return SettingsFile({"values": value}, value, VALUES, "", "values", document.position, _text(value.get("profile")))


def _operator(document: Document, value: Mapping[str, Any]) -> SettingsFile:
    kind, group = str(value.get("kind")), str(value.get("apiVersion")).partition("/")[0]
    if kind != KIND or group != GROUP:
        raise DevmeshError(
            f"{document.position('kind')}: {kind} of {value.get('apiVersion')} is no settings: they are an {KIND} of {GROUP}/v1alpha1",
            "resources go into mesh/ beside the compose file, or: devmesh apply -f",
        )
    unknown = [key for key in value if key not in ("apiVersion", "kind", "metadata", "spec", "status")]
    if unknown:
        found = [
            Diagnostic("error", SCHEMA, document.position(key), f'unknown field "{key}"', suggest(key, ("metadata", "spec")))
            for key in unknown
        ]
        raise DevmeshError("\n".join(map(str, found)), found[0].hint or HINT)
    spec = value.get("spec") or {}
    if not isinstance(spec, Mapping):
        raise DevmeshError(f"{document.position('spec')}: spec must be a mapping", HINT)
    inner = spec.get("values")
    profile = _text(spec.get("profile")) or (_text(inner.get("profile")) if isinstance(inner, Mapping) else None)
    return SettingsFile(spec, spec, SPEC, "spec", "", document.position, profile)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
