"""A whole snapshot -> ProxyConfig."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from devmesh.sidecar.config import ConfigError, ProxyConfig
from devmesh.sidecar.config_clusters import parse_cluster
from devmesh.sidecar.config_listeners import parse_listener
from devmesh.sidecar.config_routes import parse_route_table
from devmesh.sidecar.config_secrets import parse_secret

Json = Mapping[str, Any]
T = TypeVar("T")


def parse_snapshot(snapshot: Json, namespace: str = "") -> ProxyConfig:
    """Parse `{"version","listeners","routes","clusters","endpoints","names","secrets"}` of proto-JSON with proto field names.

    `namespace` is the workload's: of several services with one short name its own is meant. Raises ConfigError naming the resource
    that cannot be run; nothing is half applied.
    """
    assignments = {a["cluster_name"]: a for a in snapshot.get("endpoints", ())}
    routes = {r["name"]: _parsed(r["name"], parse_route_table, r) for r in snapshot.get("routes", ())}
    clusters = {c["name"]: _parsed(c["name"], parse_cluster, c, assignments) for c in snapshot.get("clusters", ())}
    listeners = {item["name"]: _parsed(item["name"], parse_listener, item, routes) for item in snapshot.get("listeners", ())}
    return ProxyConfig(
        version=str(snapshot.get("version", "")),
        listeners=listeners,
        clusters=clusters,
        routes=routes,
        names=_names(snapshot.get("names", ()), namespace),
        secrets={s["name"]: _parsed(s["name"], parse_secret, s) for s in snapshot.get("secrets", ())},
        partitions={a: f for c in snapshot.get("clusters", ()) for a, f in _parsed(c["name"], _cut_off, c).items()},
        raw={kind: value for kind, value in snapshot.items() if kind != "secrets"},
    )


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
