"""Everything a compile sees, immutable."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from devmesh.compiler.entries import EntryService, entry_services, in_one_namespace, merged
from devmesh.config.delegates import with_delegates
from devmesh.config.devmesh_v1 import Fault
from devmesh.config.istio_destination import DestinationRule
from devmesh.config.istio_networking import Gateway, HTTPRetry, VirtualService
from devmesh.config.istio_security import PeerAuthentication
from devmesh.config.kubernetes import Secret
from devmesh.config.model import Resource, ResourceKey, SourcePosition
from devmesh.config.topology import Topology
from devmesh.config.topology_types import Service, ServicePort, Workload

ROOT_NAMESPACE = "istio-system"
Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def per_world(function: Callable[Concatenate[World, Parameters], Answer]) -> Callable[Concatenate[World, Parameters], Answer]:
    """Ask once in the life of a world, which never changes: most of what one proxy gets, its neighbours get too.

    Whoever is given the answer leaves it as it is. Arguments are compared by identity, texts, numbers, tuples and sets by value.
    """

    @functools.wraps(function)
    def ask(world: World, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        given = (*args, *kwargs.values())
        key = (function, *(one if isinstance(one, str | int | tuple | frozenset) else id(one) for one in given))
        known = world.answers.get(key)
        if known is None:
            known = world.answers[key] = (given, function(world, *args, **kwargs))  # `given` is kept, so that no other gets its id
        answer: Answer = known[1]
        return answer

    return ask


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """The part of MeshConfig that reaches xDS. `tracing_sampling` is percent; Istio's default is 1, profile demo's 100."""

    outbound_traffic_policy: str = "ALLOW_ANY"
    tracing_sampling: float = 1.0
    access_log_file: str = ""
    access_log_encoding: str = "TEXT"
    mesh_id: str = "unknown"
    enable_tracing: bool = True
    connect_timeout: str = "10s"
    default_http_retry_policy: HTTPRetry | None = None

    @staticmethod
    def from_json(value: Mapping[str, object]) -> MeshSettings:
        known = {key: value[key] for key in MeshSettings.__dataclass_fields__ if key in value}
        if retries := known.get("default_http_retry_policy"):
            known["default_http_retry_policy"] = HTTPRetry.model_validate(retries)
        return MeshSettings(**known)  # type: ignore[arg-type] # the KV holds what to_json wrote


@dataclass(frozen=True, slots=True)
class World:
    """`ready` names the workloads that may get traffic."""

    topology: Topology
    resources: tuple[Resource, ...] = ()
    settings: MeshSettings = field(default_factory=MeshSettings)
    ready: frozenset[str] = frozenset()
    entries: tuple[EntryService, ...] = ()
    answers: dict[Any, tuple[Any, Any]] = field(default_factory=dict, init=False, compare=False, repr=False)

    @staticmethod
    def from_topology(
        topology: Topology, resources: Iterable[Resource] = (), settings: MeshSettings | None = None, endpoints: Iterable[str] | None = None
    ) -> World:
        ready = frozenset(w.name for w in topology.workloads) if endpoints is None else frozenset(endpoints)
        known = tuple(resources)
        return World(topology, known, settings or MeshSettings(), ready, tuple(entry_services(known)))

    def with_endpoints(self, ready: Iterable[str]) -> World:
        return replace(self, ready=frozenset(ready))

    @per_world
    def virtual_services(self) -> list[tuple[Resource, VirtualService]]:
        """Those with hosts, with the routes that they take from their delegates."""
        return [(resource, spec) for resource, spec, _ in self._routed().values()]

    def http_position(self, resource: Resource, index: int) -> SourcePosition:
        """Where an HTTP route of a VirtualService is written, in its own file or in its delegate's."""
        return self._routed()[resource.key][2][index]

    @per_world
    def _routed(self) -> dict[ResourceKey, tuple[Resource, VirtualService, list[SourcePosition]]]:
        services = [(r, r.spec) for r in self.resources if isinstance(r.spec, VirtualService)]
        delegates = {(r.key.namespace, r.key.name): r for r, spec in services if not spec.hosts}
        found = {}
        for resource, spec in services:
            if spec.hosts:
                routes = with_delegates(resource, spec, delegates)
                if any(http.delegate is not None for http in spec.http):
                    spec = spec.model_copy(update={"http": tuple(one.route for one in routes)})  # noqa: PLW2901
                found[resource.key] = (resource, spec, [one.position for one in routes])
        return found

    @per_world
    def destination_rules(self) -> list[tuple[Resource, DestinationRule]]:
        return [(r, r.spec) for r in self.resources if isinstance(r.spec, DestinationRule)]

    @per_world
    def gateways(self) -> list[tuple[Resource, Gateway]]:
        return [(r, r.spec) for r in self.resources if isinstance(r.spec, Gateway)]

    @per_world
    def peer_authentications(self) -> list[tuple[Resource, PeerAuthentication]]:
        return [(r, r.spec) for r in self.resources if isinstance(r.spec, PeerAuthentication)]

    def secret(self, namespace: str, name: str) -> Secret | None:
        for resource in self.resources:
            if isinstance(resource.spec, Secret) and (resource.key.namespace, resource.key.name) == (namespace, name):
                return resource.spec
        return None

    def faults(self) -> list[Resource]:
        return [r for r in self.resources if isinstance(r.spec, Fault)]

    @per_world
    def services(self, namespace: str) -> list[Service]:
        """Those that a proxy of this namespace sees, in istiod's order: the mesh's own by host name, then ServiceEntries by age."""
        return in_one_namespace(self._visible(namespace), namespace)

    @per_world
    def called(self, namespace: str, *, at_gateway: bool) -> list[Service]:
        """Each host once. At a gateway one of its own namespace has no precedence."""
        return merged(self._visible(namespace) if at_gateway else self.services(namespace))

    def _visible(self, namespace: str) -> list[Service]:
        own = sorted(self.topology.services, key=lambda service: service.hostname)
        return [*own, *(one for one in self.entries if one.visible_in(namespace))]

    @per_world
    def workloads_of(self, service: Service) -> list[Workload]:
        """In the topology's order, as the oracle's EndpointSlice lists them."""
        return [w for w in self.topology.workloads if w.namespace == service.namespace and matches(service.selector, w.labels)]

    @per_world
    def services_of(self, workload: Workload) -> list[Service]:
        """By host name: of several that say something of one port of the workload the first counts."""
        found = [s for s in self.topology.services if s.namespace == workload.namespace and matches(s.selector, workload.labels)]
        return sorted(found, key=lambda service: service.hostname)

    @per_world
    def ports_of(self, workload: Workload) -> list[tuple[Service, ServicePort]]:
        """What it serves; ServiceEntries that select it come last."""
        selecting = [one for one in self.entries if one.namespace == workload.namespace and matches(one.selector, workload.labels)]
        return [(service, port) for service in (*self.services_of(workload), *selecting) for port in service.ports]


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())
