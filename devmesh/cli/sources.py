"""From what a sidecar runs, or says it did, back to the line of YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from devmesh.config.istio_destination import DestinationRule
from devmesh.config.loader import load_value
from devmesh.config.model import Resource
from devmesh.config.names import expand_host
from devmesh.errors import DevmeshError
from devmesh.mesh import Mesh
from devmesh.registry.resources import StoredResource, in_force

Json = Mapping[str, Any]


class DestinationRules:
    """Those in force now: a request of before an `apply` may have met others."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._rules = [(one, one.spec) for one in resources if isinstance(one.spec, DestinationRule)]

    @classmethod
    async def of(cls, mesh: Mesh) -> DestinationRules:
        """None while the registry is away."""
        try:
            stored = await mesh.resources()
        except DevmeshError:
            return cls(())
        return cls(resource for one in in_force(stored) if one.owner != "fault" for resource in _loaded(one))

    def place(self, cluster: str) -> str:
        """Where the subset of a cluster is written, or else its rule; "" without one."""
        _, _, subset, host = cluster.split("|") if cluster.count("|") == 3 else ("", "", "", "")
        for resource, spec in self._rules:
            if expand_host(spec.host, resource.key.namespace) == host:
                places = [f"spec.subsets[{index}]" for index, one in enumerate(spec.subsets) if one.name == subset]
                if places or not subset:
                    return str(resource.position(places[0] if places else "spec"))
        return ""


def config_of(value: Json) -> str:
    """What Istio's metadata says of a compiled route: whose it is."""
    return str(_metadata(value, "istio").get("config", ""))


def source_of(value: Json) -> str:
    """The line of YAML that a route or a cluster follows from; "" for those that every mesh has."""
    return str(_metadata(value, "devmesh").get("source", ""))


def _metadata(value: Json, owner: str) -> Json:
    found: Json = value.get("metadata", {}).get("filter_metadata", {}).get(owner, {})
    return found


def _loaded(one: StoredResource) -> tuple[Resource, ...]:
    return load_value(one.document, one.file, one.key.namespace, owner=one.owner, lines=one.lines, columns=one.columns).resources
