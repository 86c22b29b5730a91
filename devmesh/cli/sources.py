"""From what a sidecar runs, or says it did, back to the line of YAML: the rule of a route, the rule of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from devmesh.compiler import route_match
from devmesh.compiler.shared import config_path
from devmesh.compiler.world import World
from devmesh.config.istio_destination import DestinationRule
from devmesh.config.istio_networking import HTTPMatchRequest, HTTPRoute, VirtualService
from devmesh.config.loader import load_value
from devmesh.config.model import Resource
from devmesh.config.names import expand_host
from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError
from devmesh.mesh import Mesh
from devmesh.registry.resources import StoredResource, in_force

Json = Mapping[str, Any]


class Sources:
    """Of the resources in force now: a request of before an `apply` may have met others."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._world = World(Topology("", "", (), ()), tuple(resources))
        self._virtual_services = {
            _config(resource, "virtual-service"): (resource, spec) for resource, spec in self._world.virtual_services()
        }
        self._rules = [(one, one.spec) for one in self._world.resources if isinstance(one.spec, DestinationRule)]

    @classmethod
    async def of(cls, mesh: Mesh) -> Sources:
        """None of them while the registry is away."""
        try:
            stored = await mesh.resources()
        except DevmeshError:
            return cls(())
        return cls(resource for one in in_force(stored) if one.owner != "fault" for resource in _loaded(one))

    def route(self, route: Json) -> str:
        """Where the rule of a compiled route is written; "" of one that nobody wrote."""
        found = self._virtual_services.get(config_of(route))
        if found is None:
            return ""
        same = [index for index, match in _matches(found[1]) if route_match.translate(match) == route["match"]]
        return self._place(found[0], same[:1])

    def rules(self, config: str, name: str, cluster: str, path: str) -> str:
        """Where the rule is written by which a request went: of the VirtualService that its span names, those that may have been it."""
        found = self._virtual_services.get(config)
        if found is None:
            return ""
        resource, spec = found
        likely: list[int] = []
        for index, match in _matches(spec):
            http = spec.http[index]
            if _named(http, match) == name and _leads_to(http, cluster, resource.key.namespace) and _takes(match, path):
                likely.append(index)
                if match is None or not _asks_for_more(match):
                    break  # the first that takes it is the one
        return self._place(resource, sorted(set(likely)))

    def _place(self, resource: Resource, indexes: list[int]) -> str:
        if not indexes:
            return _line(resource.position("metadata.name"))
        return " or ".join(_line(self._world.http_position(resource, index)) for index in indexes)

    def cluster(self, cluster: str) -> str:
        """Where the DestinationRule's subset of a cluster is written, or else the rule itself; "" without one."""
        _, _, subset, host = cluster.split("|") if cluster.count("|") == 3 else ("", "", "", "")
        for resource, spec in self._rules:
            if expand_host(spec.host, resource.key.namespace) == host:
                places = [f"spec.subsets[{index}]" for index, one in enumerate(spec.subsets) if one.name == subset]
                if places or not subset:
                    return _line(resource.position(places[0] if places else "spec"))
        return ""


def config_of(route: Json) -> str:
    """What Istio's metadata says of a compiled route: whose it is."""
    return str(route.get("metadata", {}).get("filter_metadata", {}).get("istio", {}).get("config", ""))


def _loaded(one: StoredResource) -> tuple[Resource, ...]:
    return load_value(one.document, one.file, one.key.namespace, owner=one.owner, lines=one.lines, columns=one.columns).resources


def _config(resource: Resource, kind: str) -> str:
    return config_path("networking.istio.io", "v1", resource.key.namespace, kind, resource.key.name)


def _line(position: Any) -> str:
    return f"{position.file}:{position.line}"


def _matches(spec: VirtualService) -> Iterator[tuple[int, HTTPMatchRequest | None]]:
    for index, http in enumerate(spec.http):
        for match in http.match or (None,):
            yield index, match


def _named(http: HTTPRoute, match: HTTPMatchRequest | None) -> str:
    return f"{http.name}.{match.name}" if match is not None and match.name else http.name


def _leads_to(http: HTTPRoute, cluster: str, namespace: str) -> bool:
    if not cluster.startswith("outbound|"):
        return not http.route
    _, _, subset, host = cluster.split("|")
    found = [one.destination for one in http.route if one.destination is not None]
    return any((expand_host(one.host, namespace), one.subset) == (host, subset) for one in found)


def _asks_for_more(match: HTTPMatchRequest) -> bool:
    """Whether a rule looks at anything but the path."""
    return bool(match.model_copy(update={"name": "", "uri": None, "ignore_uri_case": False, "stat_prefix": ""}) != HTTPMatchRequest())


def _takes(match: HTTPMatchRequest | None, path: str) -> bool:
    """Whether a rule's path, which is all that a span tells of a request, is this one's."""
    wanted = route_match.translate(match)
    if "safe_regex" in wanted:
        return re.fullmatch(wanted["safe_regex"]["regex"], path) is not None
    exact, prefix = wanted.get("path"), wanted.get("prefix", "")
    if not wanted.get("case_sensitive", True):
        exact, prefix, path = exact.lower() if exact else exact, prefix.lower(), path.lower()
    return path == exact if exact is not None else path.startswith(prefix)
