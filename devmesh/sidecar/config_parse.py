"""A snapshot, or what changed of it -> ProxyConfig."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from devmesh.sidecar.config import Cluster, ConfigError, Listener, ProxyConfig, RouteTable
from devmesh.sidecar.config_clusters import assignment_name, parse_cluster
from devmesh.sidecar.config_listeners import named_tables, parse_listener
from devmesh.sidecar.config_routes import parse_route_table
from devmesh.sidecar.config_secrets import parse_secret

Json = Mapping[str, Any]
T = TypeVar("T")


# What tells the resources of a type apart.
NAME_FIELDS = {"listeners": "name", "routes": "name", "clusters": "name", "endpoints": "cluster_name"}
NOTHING = ProxyConfig("", {}, {}, {}, {})


def parse_snapshot(snapshot: Json, namespace: str = "", before: ProxyConfig = NOTHING) -> ProxyConfig:
    """Parse `{"version","versions","listeners","routes","clusters","endpoints","names","secrets"}` of proto-JSON with proto field names.

    A type that is missing is as it was `before`; what did not change is not parsed again, and its value is the very same. `namespace` is the
    workload's: of several services with one short name its own is meant. Raises ConfigError naming the resource that cannot be run; nothing is
    half applied.
    """
    then = {kind: _by_name(kind, before.raw.get(kind)) for kind in NAME_FIELDS}
    raw = before.raw | {kind: _as_before(kind, value, then) for kind, value in snapshot.items() if kind != "secrets"}
    now = {kind: _by_name(kind, raw.get(kind)) for kind in NAME_FIELDS}
    change = Change(before, then, now)
    routes = change.routes()
    return ProxyConfig(
        version=str(snapshot.get("version", "")),
        listeners=change.listeners(routes),
        clusters=change.clusters(),
        routes=routes,
        names=_names(snapshot["names"], namespace) if "names" in snapshot else before.names,
        secrets={s["name"]: _parsed(s["name"], parse_secret, s) for s in snapshot["secrets"]} if "secrets" in snapshot else before.secrets,
        partitions={a: f for name, c in now["clusters"].items() for a, f in _parsed(name, _cut_off, c).items()},
        raw=raw,
    )


def _by_name(kind: str, resources: Any) -> dict[str, Json]:
    field = NAME_FIELDS[kind]
    try:
        return {resource[field]: resource for resource in resources or ()}
    except KeyError as error:
        raise ConfigError("?", f"one of the {kind} has no {field}") from error


def _as_before(kind: str, value: Any, then: Mapping[str, Mapping[str, Json]]) -> Any:
    """The resources of a type; one that is equal to the one before is that one, so that there is one of it."""
    if kind not in NAME_FIELDS:
        return value
    known = (then[kind].get(resource.get(NAME_FIELDS[kind])) for resource in value)
    return [old if old == new else new for old, new in zip(known, value, strict=True)]


@dataclass(frozen=True, slots=True)
class Change:
    """What was in force, and the resources by type and name then and now: the same object where nothing changed."""

    before: ProxyConfig
    then: Mapping[str, Mapping[str, Json]]
    now: Mapping[str, Mapping[str, Json]]

    def _is_same(self, kind: str, name: str) -> bool:
        return self.then[kind].get(name) is self.now[kind].get(name)

    def routes(self) -> dict[str, RouteTable]:
        old, then = self.before.routes, self.then["routes"]
        return {
            name: old[name] if self._is_same("routes", name) else _parsed(name, parse_route_table, table, then.get(name), old.get(name))
            for name, table in self.now["routes"].items()
        }

    def clusters(self) -> dict[str, Cluster]:
        old, assignments = self.before.clusters, self.now["endpoints"]
        return {
            name: old[name] if self._is_same_cluster(name, cluster) else _parsed(name, parse_cluster, cluster, assignments)
            for name, cluster in self.now["clusters"].items()
        }

    def _is_same_cluster(self, name: str, cluster: Json) -> bool:
        return self._is_same("clusters", name) and self._is_same("endpoints", _parsed(name, assignment_name, cluster))

    def listeners(self, routes: Mapping[str, RouteTable]) -> dict[str, Listener]:
        """A listener holds the tables that it names."""
        old = self.before.listeners
        changed = {name for name in routes.keys() | self.before.routes.keys() if routes.get(name) is not self.before.routes.get(name)}
        return {
            name: old[name]
            if self._is_same("listeners", name) and changed.isdisjoint(named_tables(listener))
            else _parsed(name, parse_listener, listener, routes)
            for name, listener in self.now["listeners"].items()
        }


def _parsed(name: str, parse: Callable[..., T], *arguments: Any) -> T:
    """A missing or malformed field is the resource's mistake, so it is answered with a NACK like every other."""
    try:
        return parse(*arguments)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(name, f"malformed resource: {type(error).__name__}: {error}") from error


def _cut_off(cluster: Json) -> dict[str, str]:
    """The compiler writes them at BlackHoleCluster, which every proxy has: {address: fault}."""
    found = cluster.get("metadata", {}).get("filter_metadata", {}).get("devmesh", {}).get("partition", {})
    return {str(address): str(fault) for address, fault in found.items()}


def _names(tables: Any, own: str) -> dict[str, tuple[str, ...]]:
    """Istio's NameTable (NDS) with the short forms that a resolver's search list would try."""
    out: dict[str, tuple[str, ...]] = {}
    for table in tables if isinstance(tables, list | tuple) else (tables,):
        for host, entry in table.get("table", {}).items():
            ips = tuple(entry.get("ips", ()))
            name, namespace = entry.get("shortname", "").lower(), entry.get("namespace", "")
            forms = [host, *([f"{name}.{namespace}.svc", f"{name}.{namespace}"] if name and namespace else [])]
            for form in forms:
                out[form.lower()] = ips
            if name and (name not in out or namespace == own):
                out[name] = ips
    return out
