"""What a proxy sees: VirtualServices by exportTo, and the services that its clusters and routes may mean (istiod's SidecarScope)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from devmesh.compiler.entries import EntryService
from devmesh.compiler.world import World, per_world
from devmesh.config.istio_networking import Destination, HTTPRoute, VirtualService
from devmesh.config.model import Resource
from devmesh.config.names import expand_host
from devmesh.config.topology_types import Service

MESH = frozenset({"mesh"})


def gateway_name(name: str, namespace: str) -> str:
    """`<namespace>/<name>` for a Gateway as a VirtualService of this namespace names it (istiod's resolveGatewayName, old forms included)."""
    if name == "mesh":
        return name
    if "/" in name:
        own, _, rest = name.partition("/")
        return f"{namespace if own == '.' else own}/{rest}"
    short, _, rest = name.partition(".")
    return f"{rest.partition('.')[0] or namespace}/{short}"


def gateways_of(resource: Resource, spec: VirtualService) -> frozenset[str]:
    """Whose traffic a VirtualService is for; MESH is the sidecars'."""
    return frozenset(gateway_name(name, resource.key.namespace) for name in spec.gateways) or MESH


@per_world
def mesh_services(world: World, namespace: str) -> list[tuple[Resource, VirtualService]]:
    """Those for sidecars that one of this namespace sees."""
    return [(resource, spec) for resource, spec in seen_services(world, namespace) if "mesh" in gateways_of(resource, spec)]


@per_world
def seen_services(world: World, namespace: str) -> list[tuple[Resource, VirtualService]]:
    """What exportTo lets proxies of a namespace see: what it keeps to itself, then what others show it, then what all see (istiod's order)."""
    services = [(_visibility(resource, spec, namespace), resource, spec) for resource, spec in world.virtual_services()]
    return [(resource, spec) for _, resource, spec in sorted((one for one in services if one[0]), key=lambda one: one[0])]


def _visibility(resource: Resource, spec: VirtualService, namespace: str) -> int:
    """0: not at all."""
    own = resource.key.namespace
    shown_to = {own if to == "." else to for to in spec.export_to or ("*",)}
    if "*" in shown_to:
        return 3
    if "~" in shown_to or namespace not in shown_to:
        return 0
    return 1 if namespace == own else 2


@per_world
def service_called(world: World, host: str, namespace: str, *, at_gateway: bool) -> Service | None:
    return next((one for one in services_called(world, namespace, at_gateway=at_gateway) if one.hostname == host), None)


@per_world
def services_called(world: World, namespace: str, *, at_gateway: bool) -> list[Service]:
    """Those that clusters are made for, each host once.

    For a sidecar also what its own namespace has and shows only to others, as far as VirtualServices lead there: istiod's collectImportedServices.
    """
    seen = world.called(namespace, at_gateway=at_gateway)
    hidden = [one for one in world.entries if one.namespace == namespace and not one.visible_in(namespace)]
    if at_gateway or not hidden:
        return seen
    hosts = {one.hostname for one in seen}
    ports = _called_ports(world, namespace)
    return [*seen, *(found for one in hidden if one.hostname not in hosts and (found := _reached(one, ports[one.hostname])) is not None)]


def _reached(service: EntryService, ports: set[int]) -> EntryService | None:
    """With the ports that destinations name; 0 is one that names none."""
    named = tuple(port for port in service.ports if port.port in ports or 0 in ports)
    return replace(service, ports=named) if named else None


def _called_ports(world: World, namespace: str) -> defaultdict[str, set[int]]:
    found = defaultdict(set)
    for resource, spec in mesh_services(world, namespace):
        for destination in _destinations(spec, namespace):
            host = expand_host(destination.host, resource.key.namespace)
            found[host].add(destination.port.number if destination.port is not None else 0)
    return found


def _destinations(spec: VirtualService, namespace: str) -> list[Destination]:
    routes = [http for http in spec.http if _for_namespace(http, namespace)]
    found = [http.mirror for http in routes]
    found += [one.destination for http in routes for one in http.route]
    found += [one.destination for http in routes for one in http.mirrors]
    found += [one.destination for tcp in spec.tcp for one in tcp.route]
    found += [one.destination for tls in spec.tls for one in tls.route]
    return [one for one in found if one is not None]


def _for_namespace(http: HTTPRoute, namespace: str) -> bool:
    """Where matches name source namespaces, one of them has to be this."""
    named = [match.source_namespace for match in http.match if match.source_namespace]
    return not named or namespace in named
