"""One proxy's whole configuration, versioned by its content, each type by its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

TYPES = ("listeners", "routes", "clusters", "endpoints", "names", "secrets")
SHOWN_TYPES = tuple(kind for kind in TYPES if kind != "secrets")  # what an API may tell
NAME_FIELDS = {"endpoints": "cluster_name"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One resource as JSON. `digest` is the same for the same content, in whatever order its keys are."""

    text: bytes
    digest: bytes

    @staticmethod
    def of(resource: Mapping[str, Any]) -> Encoded:
        return Encoded(orjson.dumps(resource), hashlib.sha256(orjson.dumps(resource, option=orjson.OPT_SORT_KEYS)).digest())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`resources` holds proto-JSON by type; equal content has an equal version, whoever compiled it and when.

    `versions` are those of each type, `encoded` its resources as they are sent; both of `of` alone.
    """

    version: str
    resources: Mapping[str, tuple[Mapping[str, Any], ...]]
    versions: Mapping[str, str] = field(default_factory=dict)
    encoded: Mapping[str, tuple[Encoded, ...]] = field(default_factory=dict)

    @staticmethod
    def of(
        listeners: Sequence[Mapping[str, Any]],
        routes: Sequence[Mapping[str, Any]],
        clusters: Sequence[Mapping[str, Any]],
        endpoints: Sequence[Mapping[str, Any]],
        names: Sequence[Mapping[str, Any]] = (),
        secrets: Sequence[Mapping[str, Any]] = (),
        *,
        encode: Callable[[Mapping[str, Any]], Encoded] = Encoded.of,
    ) -> Snapshot:
        """`encode` may remember what it has encoded: several proxies have the same resource."""
        resources = dict(zip(TYPES, map(tuple, (listeners, routes, clusters, endpoints, names, secrets)), strict=True))
        encoded = {kind: tuple(map(encode, found)) for kind, found in resources.items()}
        versions = {kind: version_of(one.digest for one in found) for kind, found in encoded.items()}
        return Snapshot(whole_version(versions), resources, versions, encoded)

    def version_of(self, kind: str) -> str:
        return self.versions.get(kind, self.version)

    def texts(self, kind: str) -> Iterable[bytes]:
        """The resources of a type, encoded."""
        known = self.encoded.get(kind)
        return (one.text for one in known) if known is not None else map(orjson.dumps, self.resources.get(kind, ()))

    def to_json(self) -> dict[str, Any]:
        """Everything but the secrets."""
        return {"version": self.version, **{kind: list(self.resources.get(kind, ())) for kind in SHOWN_TYPES}}

    def consistent(self) -> list[str]:
        """What is referenced and missing: route tables of listeners, endpoints of EDS clusters. Empty means whole."""
        tables = {table["name"] for table in self.resources["routes"]}
        assigned = {one["cluster_name"] for one in self.resources["endpoints"]}
        missing = [f"route table {name}" for name in _tables_of(self.resources["listeners"]) if name not in tables]
        missing += [f"endpoints of {c['name']}" for c in self.resources["clusters"] if c.get("type") == "EDS" and c["name"] not in assigned]
        return missing

    def diff(self, older: Snapshot) -> dict[str, set[str]]:
        """Names of resources that are new, gone or other, by type."""
        out = {}
        for kind in TYPES:
            field = NAME_FIELDS.get(kind, "name")
            now = {r.get(field, ""): r for r in self.resources[kind]}
            then = {r.get(field, ""): r for r in older.resources[kind]}
            out[kind] = {name for name in now.keys() | then.keys() if now.get(name) != then.get(name)}
        return out


def version_of(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def whole_version(versions: Mapping[str, str]) -> str:
    """The version of a snapshot whose types have these: what a sidecar, which is sent only the types that changed, runs then."""
    return version_of(versions.get(kind, "").encode() for kind in TYPES)


def _tables_of(listeners: Sequence[Mapping[str, Any]]) -> list[str]:
    chains = [chain for listener in listeners for chain in listener.get("filter_chains", ())]
    configs = [one["typed_config"] for chain in chains for one in chain["filters"]]
    return [config["rds"]["route_config_name"] for config in configs if "rds" in config]
