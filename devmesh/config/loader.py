"""YAML in, resources and diagnostics out: everything wrong is reported with its place, and nothing stops at the first."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devmesh.config.kinds import KINDS, KnownKind, find_kind
from devmesh.config.model import Diagnostic, ObjectMeta, Resource, ResourceKey, SourcePosition
from devmesh.config.schema import SCHEMA, suggest, validate
from devmesh.config.support import support_diagnostics
from devmesh.config.yaml import Document, read_documents

UNREADABLE, UNKNOWN_KIND, DUPLICATE, FOREIGN_KIND = "DM0000", "DM0003", "DM0004", "DM0009"
_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_FLAT_TOP_LEVEL = ("apiVersion", "kind", "metadata")
_METADATA = (
    "name", "namespace", "labels", "annotations", "generateName", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "ownerReferences", "managedFields", "selfLink",
)  # fmt: skip
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KUBERNETES_GROUPS = re.compile(r"apps|batch|policy|autoscaling|extensions|discovery\.k8s\.io|[a-z.]+\.k8s\.io")
_CORE_KINDS = ("ConfigMap", "Endpoints", "Namespace", "PersistentVolumeClaim", "Pod", "Service", "ServiceAccount")


@dataclass(frozen=True, slots=True)
class Loaded:
    """`resources` holds only what is valid by itself; duplicates of a key are left out after the first."""

    resources: tuple[Resource, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(one for one in self.diagnostics if one.severity == "error")


def load_text(text: str, source_name: str, default_namespace: str = "default", *, owner: str = "apply") -> Loaded:
    documents, diagnostics = read_documents(text, source_name)
    resources: list[Resource] = []
    for document in documents:
        for item in _items(document):
            resource, found = _resource(item, default_namespace, owner)
            diagnostics += found
            resources += [resource] if resource else []
    diagnostics.sort(key=lambda one: (one.where.line, one.where.column) if one.where else (0, 0))
    return _without_duplicates(resources, diagnostics)


def load_value(
    value: Mapping[str, Any],
    source_name: str,
    default_namespace: str = "default",
    *,
    owner: str = "apply",
    lines: Mapping[str, int] | None = None,
    columns: Mapping[str, int] | None = None,
) -> Loaded:
    """Read one document that was parsed before (out of the KV): no YAML, the places it had in its own file."""
    document = Document(dict(value), source_name, dict(lines or {}), dict(columns or {}))
    resource, diagnostics = _resource(document, default_namespace, owner)
    return Loaded((resource,) if resource else (), tuple(diagnostics))


def load_paths(paths: Iterable[str | Path], default_namespace: str = "default", *, owner: str = "apply") -> Loaded:
    """Read files, and of directories the *.yaml, *.yml and *.json in them (as kubectl: not below)."""
    resources: list[Resource] = []
    diagnostics: list[Diagnostic] = []
    for path in _files(paths, diagnostics):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            diagnostics.append(Diagnostic("error", UNREADABLE, SourcePosition(str(path)), f"cannot be read: {reason}"))
            continue
        loaded = load_text(text, str(path), default_namespace, owner=owner)
        resources += loaded.resources
        diagnostics += loaded.diagnostics
    return _without_duplicates(resources, diagnostics)


def _files(paths: Iterable[str | Path], diagnostics: list[Diagnostic]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml", ".json")) if path.is_dir() else [path]
        files += inside
        if not inside:
            diagnostics.append(
                Diagnostic("warning", UNREADABLE, SourcePosition(str(path)), "no *.yaml, *.yml or *.json file in this directory")
            )
    return list(dict.fromkeys(files))


def _without_duplicates(resources: Iterable[Resource], diagnostics: list[Diagnostic]) -> Loaded:
    kept: dict[ResourceKey, Resource] = {}
    for resource in resources:
        first = kept.get(resource.key)
        if first is None:
            kept[resource.key] = replace(resource, order=len(kept))
            continue
        message = f"{resource.key} is defined twice: first at {first.position('metadata.name')}, again here"
        hint = "give one of them another name, or delete it"
        diagnostics.append(Diagnostic("error", DUPLICATE, resource.position("metadata.name"), message, hint))
    return Loaded(tuple(kept.values()), tuple(diagnostics))


def _items(document: Document) -> list[Document]:
    """Take a `kind: List` apart."""
    value = document.value
    if not (isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list)):
        return [document]
    return [_part(document, f"items[{index}]", item) for index, item in enumerate(value["items"])]


def _part(document: Document, prefix: str, value: Any) -> Document:
    def under(places: Mapping[str, int]) -> dict[str, int]:
        inside = {
            path.removeprefix(prefix).removeprefix("."): place
            for path, place in places.items()
            if path.startswith((f"{prefix}.", f"{prefix}["))
        }
        return {"": places[prefix]} | inside

    return Document(value, document.file, under(document.lines), under(document.columns), document.faulty)


def _resource(document: Document, default_namespace: str, owner: str) -> tuple[Resource | None, list[Diagnostic]]:
    value = document.value
    if not isinstance(value, dict):
        where = document.position()
        return None, [
            Diagnostic("error", SCHEMA, where, "a resource is a mapping with apiVersion, kind, metadata and spec; this is something else")
        ]
    known, diagnostics = _known_kind(document, value)
    if known is None:
        return None, diagnostics
    if not known.flat:
        diagnostics += _unknown_keys(document, value, "", _TOP_LEVEL)
    meta, found = _metadata(document, value.get("metadata"), default_namespace)
    diagnostics += found
    if known.flat:
        spec, found = validate(document, known.model, {key: one for key, one in value.items() if key not in _FLAT_TOP_LEVEL}, "")
    else:
        spec, found = validate(document, known.model, value.get("spec") or {})
    diagnostics += found
    if meta is None or document.faulty or any(one.severity == "error" for one in diagnostics):
        return None, diagnostics
    key = ResourceKey(known.group, known.kind, meta.namespace, meta.name)
    resource = Resource(key, value["apiVersion"], meta, spec, value, document.file, document.lines, owner, columns=document.columns)
    return resource, diagnostics + support_diagnostics(resource)


def _known_kind(document: Document, value: Mapping[str, Any]) -> tuple[KnownKind | None, list[Diagnostic]]:
    api_version, kind = value.get("apiVersion"), value.get("kind")
    missing = [name for name, one in (("apiVersion", api_version), ("kind", kind)) if not isinstance(one, str) or not one]
    if missing or not isinstance(api_version, str) or not isinstance(kind, str):
        return None, [Diagnostic("error", SCHEMA, document.position(name), f"{name} is missing or not text") for name in missing]
    group, _, version = api_version.rpartition("/")
    known = find_kind(group, kind)
    if known and version in known.versions:
        return known, []
    if known:
        message = f'{kind} has no version "{version}" in {group}: it is served as {", ".join(known.versions)}'
        return None, [Diagnostic("error", UNKNOWN_KIND, document.position("apiVersion"), message, suggest(version, known.versions))]
    return None, [_unknown_kind(document, group, kind)]


def _unknown_kind(document: Document, group: str, kind: str) -> Diagnostic:
    where = document.position("kind")
    here = [one.kind for one in KINDS if one.group == group]
    if kind in (elsewhere := {one.kind: one.group for one in KINDS}):
        message = f'there is no kind "{kind}" in "{group}"'
        return Diagnostic(
            "error", UNKNOWN_KIND, document.position("apiVersion"), message, f'did you mean apiVersion: "{elsewhere[kind]}/..."?'
        )
    hint = suggest(kind, here or list(elsewhere))
    if (group == "" and kind in _CORE_KINDS) or (not here and _KUBERNETES_GROUPS.fullmatch(group)):
        message = f"{kind} is Kubernetes' own and not used here: the compose file says what runs"
        return Diagnostic("warning", FOREIGN_KIND, where, message)
    return Diagnostic("error", UNKNOWN_KIND, where, f'unknown kind "{kind}" in "{group}"', hint)


def _metadata(document: Document, meta: Any, default_namespace: str) -> tuple[ObjectMeta | None, list[Diagnostic]]:
    if not isinstance(meta, dict):
        return None, [Diagnostic("error", SCHEMA, document.position("metadata"), "metadata.name is missing", "add metadata: {name: ...}")]
    diagnostics = _unknown_keys(document, meta, "metadata", _METADATA)

    def report(path: str, message: str, hint: str | None = None) -> None:
        diagnostics.append(Diagnostic("error", SCHEMA, document.position(path), message, hint))

    name, namespace = meta.get("name"), meta.get("namespace") or default_namespace
    if name is None:
        report("metadata", "metadata.name is missing", "add metadata: {name: ...}")
    elif not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 253:
        report("metadata.name", f'metadata.name {name!r} is not a name: lower-case letters, digits, "-" and "."')
    if not isinstance(namespace, str) or not _NAME.fullmatch(namespace) or "." in namespace:
        report("metadata.namespace", f'metadata.namespace {namespace!r} is not a name: lower-case letters, digits and "-"')
    for field in ("labels", "annotations"):
        for path, message in _not_text(meta.get(field), f"metadata.{field}"):
            report(path, message, "put the value in quotes")
    if any(one.severity == "error" for one in diagnostics):
        return None, diagnostics
    return ObjectMeta(str(name), namespace, meta.get("labels") or {}, meta.get("annotations") or {}), diagnostics


def _not_text(values: Any, path: str) -> list[tuple[str, str]]:
    if values is None:
        return []
    if not isinstance(values, dict):
        return [(path, f"{path} must be a mapping of names to text")]
    return [(f"{path}.{key}", f"{path}.{key} must be text, not {value!r}") for key, value in values.items() if not isinstance(value, str)]


def _unknown_keys(document: Document, value: Mapping[str, Any], path: str, known: Iterable[str]) -> list[Diagnostic]:
    paths = {key: f"{path}.{key}" if path else key for key in value if key not in set(known)}
    return [
        Diagnostic("error", SCHEMA, document.position(full), f'unknown field "{full}"', suggest(key, known)) for key, full in paths.items()
    ]
