"""Routes below HTTP: `tcp` and `tls` of a VirtualService, as the filter chains of gateways and sidecars."""

from __future__ import annotations

from collections.abc import Sequence

from devmesh.compiler.clusters import cluster_name
from devmesh.compiler.destination_rules import Rule, client_of, policy_of_subset, rule_for
from devmesh.compiler.gateways import GatewayServer, intersection
from devmesh.compiler.scope import MESH, gateway_name, gateways_of, mesh_services, seen_services, service_called
from devmesh.compiler.shared import Json, config_path, metadata, said_at, server_names, tcp_proxy
from devmesh.compiler.world import World, matches, per_world
from devmesh.config.durations import format_duration
from devmesh.config.istio_destination import DestinationRule
from devmesh.config.istio_networking import Destination, L4MatchAttributes, RouteDestination, TCPRoute, TLSMatchAttributes, VirtualService
from devmesh.config.model import Resource, SourcePosition
from devmesh.config.names import expand_host, host_matches
from devmesh.config.topology_types import Service, ServicePort, Workload

L4Match = L4MatchAttributes | TLSMatchAttributes


def tcp_filter(world: World, proxy: Workload, resource: Resource, routes: Sequence[RouteDestination], port: int) -> Json:
    """The TcpProxy to one destination, or to several by weight; a destination without weight among several gets nothing.

    Of several it is the first one's DestinationRule that counts.
    """
    namespace, first = resource.key.namespace, routes[0].destination
    service = _called(world, proxy, expand_host(first.host, namespace)) if first is not None else None
    rule = rule_for(world, service, client_of(world, proxy)) if service is not None else None
    if len(routes) == 1:
        name = _cluster(world, proxy, first, namespace, port)
        return _governed(tcp_proxy(name, name), rule, first.subset if first is not None else "")
    several = tcp_proxy(f"{resource.key.name}.{namespace}", "")
    del several["typed_config"]["cluster"]
    weighted = [
        {"name": _cluster(world, proxy, one.destination, namespace, port), "weight": one.weight} for one in routes if one.weight > 0
    ]
    several["typed_config"]["weighted_clusters"] = {"clusters": weighted}
    return _governed(several, rule, "")


def _governed(proxy: Json, rule: Rule | None, subset: str) -> Json:
    """What a DestinationRule says of connections: its policy for the whole host, whatever it says of ports and subsets, as in istiod."""
    config = proxy["typed_config"]
    policy = rule.spec.traffic_policy if rule is not None else None
    tcp = policy.connection_pool.tcp if policy is not None and policy.connection_pool is not None else None
    if tcp is not None and tcp.idle_timeout is not None:
        config["idle_timeout"] = format_duration(tcp.idle_timeout)
    if tcp is not None and tcp.max_connection_duration is not None:
        config["max_downstream_connection_duration"] = format_duration(tcp.max_connection_duration)
    tunnel = _tunnel(rule.spec, subset) if rule is not None else None
    if tunnel is not None:
        config["tunneling_config"] = tunnel
    if rule is not None and _by_source(rule.spec, subset):
        config["hash_policy"] = [{"source_ip": {}}]
    return proxy


def _tunnel(rule: DestinationRule, subset: str) -> Json | None:
    """A subset has its own or none."""
    policy = policy_of_subset(rule, subset) if subset else rule.traffic_policy
    tunnel = policy.tunnel if policy is not None else None
    if tunnel is None:
        return None
    host = f"[{tunnel.target_host}]" if ":" in tunnel.target_host else tunnel.target_host
    return {"hostname": f"{host}:{tunnel.target_port}", **({"use_post": True} if tunnel.protocol == "POST" else {})}


def _by_source(rule: DestinationRule, subset: str) -> bool:
    """useSourceIp, of a subset if that has a balancer of its own; `portLevelSettings` are not asked."""
    own = policy_of_subset(rule, subset)
    balancer = own.load_balancer if own is not None else None
    if balancer is None:
        balancer = rule.traffic_policy.load_balancer if rule.traffic_policy is not None else None
    hashing = balancer.consistent_hash if balancer is not None else None
    return hashing is not None and bool(hashing.use_source_ip)


def _cluster(world: World, proxy: Workload, destination: Destination | None, namespace: str, port: int) -> str:
    """Its port is the one it names, else its service's only one, else the listener's."""
    if destination is None:
        return cluster_name("", port, "")
    host = expand_host(destination.host, namespace)
    if destination.port is not None and destination.port.number:
        port = destination.port.number
    else:
        service = _called(world, proxy, host)
        port = service.ports[0].port if service is not None and len(service.ports) == 1 else port
    return cluster_name(host, port, destination.subset)


def _called(world: World, proxy: Workload, host: str) -> Service | None:
    return service_called(world, host, proxy.namespace, at_gateway=proxy.gateway)


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


def bound_services(world: World, one: GatewayServer, proxy: Workload) -> list[tuple[Resource, VirtualService]]:
    """VirtualServices that name the server's Gateway and one of its hosts."""
    out = []
    for resource, spec in seen_services(world, proxy.namespace):
        namespace = resource.key.namespace
        if one.gateway not in gateways_of(resource, spec):
            continue
        hosts = [expand_host(host, namespace) for host in spec.hosts]
        if intersection(hosts, one.hosts_for(namespace)):
            out.append((resource, spec))
    return out


def gateway_tcp_filter(world: World, proxy: Workload, one: GatewayServer) -> tuple[Json, SourcePosition] | None:
    """The first `tcp` route for what a server lets through, and its line; None leaves the server without a filter chain."""
    for resource, spec in bound_services(world, one, proxy):
        for index, tcp in enumerate(spec.tcp):
            if _fits(tcp, one, proxy, resource.key.namespace):
                return tcp_filter(world, proxy, resource, tcp.route, one.number), resource.position(f"spec.tcp[{index}]")
    return None


def _fits(tcp: TCPRoute, one: GatewayServer, proxy: Workload, namespace: str) -> bool:
    return not tcp.match or any(applies(match, one.number, proxy, frozenset({one.gateway}), namespace) for match in tcp.match)


def gateway_tls_chains(world: World, proxy: Workload, one: GatewayServer, known: set[str]) -> list[Json]:
    """A chain for each `tls` match of a PASSTHROUGH server: Envoy takes a server name once, so the first has it. `known` is extended."""
    chains = []
    for resource, spec in bound_services(world, one, proxy):
        for index, tls in enumerate(spec.tls):
            for match in tls.match:
                names = {name.lower() for name in match.sni_hosts}
                if not applies(match, one.number, proxy, frozenset({one.gateway}), resource.key.namespace) or names & known:
                    continue
                known |= names
                chains.append(
                    {
                        **server_names(match.sni_hosts),
                        "filters": [tcp_filter(world, proxy, resource, tls.route, one.number)],
                        "metadata": {"filter_metadata": said_at(resource.position(f"spec.tls[{index}]"))},
                        "transport_socket_connect_timeout": "15s",
                    }
                )
    return chains


def outbound_chains(world: World, proxy: Workload, service: Service, port: ServicePort) -> list[Json]:
    """A sidecar's chains for one port below HTTP: what VirtualServices for the mesh say of it, else its own cluster."""
    chains = _outbound_chains(world, proxy, service, port)
    return [_within(service.cluster_ip, chain) for chain in chains] if "/" in service.cluster_ip else chains


def _within(network: str, chain: Json) -> Json:
    """Only for destinations in a range of addresses."""
    address, _, bits = network.partition("/")
    match = {**chain.get("filter_chain_match", {}), "prefix_ranges": [{"address_prefix": address, "prefix_len": int(bits)}]}
    return {**chain, "filter_chain_match": match}


def _outbound_chains(world: World, proxy: Workload, service: Service, port: ServicePort) -> list[Json]:
    naming = _naming(world, proxy.namespace, service)
    if not port.is_tls:
        return [_outbound_tcp(world, proxy, service, port, naming)]
    chains: list[Json] = []
    seen: set[tuple[str, ...]] = set()
    for resource, spec in naming:
        for index, tls in enumerate(spec.tls):
            for match in tls.match:
                if applies(match, port.port, proxy, MESH, resource.key.namespace) and match.sni_hosts not in seen:
                    seen.add(match.sni_hosts)
                    chain = _routed(resource, f"spec.tls[{index}]", tcp_filter(world, proxy, resource, tls.route, port.port))
                    chains.append({**server_names(match.sni_hosts), **chain})
    return chains or [_own_chain(world, proxy, service, port)]


@per_world
def _naming(world: World, namespace: str, service: Service) -> list[tuple[Resource, VirtualService]]:
    """Those for sidecars of a namespace that name the service."""
    return [
        (resource, spec)
        for resource, spec in mesh_services(world, namespace)
        if any(host_matches(expand_host(host, resource.key.namespace), service.hostname) for host in spec.hosts)
    ]


def _outbound_tcp(
    world: World, proxy: Workload, service: Service, port: ServicePort, naming: list[tuple[Resource, VirtualService]]
) -> Json:
    for resource, spec in naming:
        for index, tcp in enumerate(spec.tcp):
            if not tcp.match or any(applies(match, port.port, proxy, MESH, resource.key.namespace) for match in tcp.match):
                return _routed(resource, f"spec.tcp[{index}]", tcp_filter(world, proxy, resource, tcp.route, port.port))
    return _own_chain(world, proxy, service, port)


def _routed(resource: Resource, path: str, network: Json) -> Json:
    config = config_path("networking.istio.io", "v1", resource.key.namespace, "virtual-service", resource.key.name)
    return {"filters": [network], "metadata": metadata(config, resource.position(path)), "transport_socket_connect_timeout": "15s"}


def _own_chain(world: World, proxy: Workload, service: Service, port: ServicePort) -> Json:
    """TLS to a service without an address is told by its host's name."""
    name = cluster_name(service.hostname, port.port, "")
    match = server_names([service.hostname]) if port.is_tls and (not service.cluster_ip or "/" in service.cluster_ip) else {}
    network = _governed(tcp_proxy(name, name), rule_for(world, service, client_of(world, proxy)), "")
    return {**match, "filters": [network], "transport_socket_connect_timeout": "15s"}
