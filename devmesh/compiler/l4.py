"""Routes below HTTP: `tcp` and `tls` of a VirtualService, as the filter chains of gateways and sidecars."""

from __future__ import annotations

from collections.abc import Sequence

from devmesh.compiler.clusters import cluster_name
from devmesh.compiler.gateways import GatewayServer, intersection
from devmesh.compiler.routes import gateway_name
from devmesh.compiler.shared import Json, tcp_proxy
from devmesh.compiler.world import World, matches
from devmesh.config.istio_networking import Destination, L4MatchAttributes, RouteDestination, TCPRoute, TLSMatchAttributes, VirtualService
from devmesh.config.model import Resource
from devmesh.config.names import expand_host
from devmesh.config.topology_types import Workload

L4Match = L4MatchAttributes | TLSMatchAttributes


def tcp_filter(world: World, resource: Resource, routes: Sequence[RouteDestination], port: int) -> Json:
    """The TcpProxy to one destination, or to several by weight; a destination without weight among several gets nothing."""
    namespace = resource.key.namespace
    if len(routes) == 1:
        name = _cluster(world, routes[0].destination, namespace, port)
        return tcp_proxy(name, name)
    proxy = tcp_proxy(f"{resource.key.name}.{namespace}", "")
    del proxy["typed_config"]["cluster"]
    weighted = [{"name": _cluster(world, one.destination, namespace, port), "weight": one.weight} for one in routes if one.weight > 0]
    proxy["typed_config"]["weighted_clusters"] = {"clusters": weighted}
    return proxy


def _cluster(world: World, destination: Destination | None, namespace: str, port: int) -> str:
    """Its port is the one it names, else its service's only one, else the listener's."""
    if destination is None:
        return cluster_name("", port, "")
    host = expand_host(destination.host, namespace)
    if destination.port is not None and destination.port.number:
        port = destination.port.number
    else:
        service = world.service_by_host(host)
        port = service.ports[0].port if service is not None and len(service.ports) == 1 else port
    return cluster_name(host, port, destination.subset)


def applies(match: L4Match, port: int, proxy: Workload, bound: frozenset[str], namespace: str) -> bool:
    """What only this proxy can say of a match: port, gateways, and of a sidecar sourceLabels and sourceNamespace.

    `bound` are the gateways whose traffic it is (`mesh` for a sidecar's own), `namespace` the VirtualService's.
    """
    if match.port and match.port != port:
        return False
    if match.gateways and not ({gateway_name(name, namespace) for name in match.gateways} & bound):
        return False
    if proxy.gateway:
        return True
    if match.source_labels and not matches(match.source_labels, proxy.labels):
        return False
    return not match.source_namespace or match.source_namespace == proxy.namespace


def bound_services(world: World, one: GatewayServer) -> list[tuple[Resource, VirtualService]]:
    """VirtualServices that name the server's Gateway and one of its hosts."""
    out = []
    for resource, spec in world.virtual_services():
        namespace = resource.key.namespace
        if one.gateway not in {gateway_name(name, namespace) for name in spec.gateways}:
            continue
        hosts = [expand_host(host, namespace) for host in spec.hosts]
        if intersection(hosts, one.hosts_for(namespace)):
            out.append((resource, spec))
    return out


def gateway_tcp_filter(world: World, proxy: Workload, one: GatewayServer) -> Json | None:
    """The first `tcp` route for what a server lets through; None leaves the server without a filter chain."""
    for resource, spec in bound_services(world, one):
        for tcp in spec.tcp:
            if _fits(tcp, one, proxy, resource.key.namespace):
                return tcp_filter(world, resource, tcp.route, one.number)
    return None


def _fits(tcp: TCPRoute, one: GatewayServer, proxy: Workload, namespace: str) -> bool:
    return not tcp.match or any(applies(match, one.number, proxy, frozenset({one.gateway}), namespace) for match in tcp.match)


def gateway_tls_chains(world: World, proxy: Workload, one: GatewayServer, known: set[str]) -> list[Json]:
    """A chain for each `tls` match of a PASSTHROUGH server: Envoy takes a server name once, so the first has it. `known` is extended."""
    chains = []
    for resource, spec in bound_services(world, one):
        for tls in spec.tls:
            for match in tls.match:
                names = {name.lower() for name in match.sni_hosts}
                if not applies(match, one.number, proxy, frozenset({one.gateway}), resource.key.namespace) or names & known:
                    continue
                known |= names
                chains.append(
                    {
                        "filter_chain_match": {"server_names": list(match.sni_hosts)},
                        "filters": [tcp_filter(world, resource, tls.route, one.number)],
                        "transport_socket_connect_timeout": "15s",
                    }
                )
    return chains
