"""What of a DestinationRule's policies counts where istiod has rules of its own for it: TLS of endpoints, hashing on routes, PASSTHROUGH."""

from __future__ import annotations

from devmesh.compiler.destination_rules import policy_for, policy_of_subset, port_level
from devmesh.config.istio_destination import ConsistentHashLB, DestinationRule, LoadBalancerSettings, PortTrafficPolicy, TrafficPolicy
from devmesh.config.istio_networking import Destination


def passes_through(rule: DestinationRule, subset: str, port: int) -> bool:
    """Whether a cluster is made to go where the client addressed it.

    istiod makes subsets of what the host's cluster has become, and looks at a subset's own PASSTHROUGH without its ports.
    """
    host = policy_for(rule.traffic_policy, port)
    return _is_passthrough(host.load_balancer) or (bool(subset) and leaves_endpoints_to_clients(rule, subset))


def leaves_endpoints_to_clients(rule: DestinationRule, subset: str) -> bool:
    """What istiod goes by for mTLS: PASSTHROUGH of the host or of the subset itself, whatever holds for the port."""
    own = policy_of_subset(rule, subset) if subset else rule.traffic_policy
    return own is not None and _is_passthrough(own.load_balancer)


def _is_passthrough(balancer: LoadBalancerSettings | None) -> bool:
    return balancer is not None and balancer.simple == "PASSTHROUGH"


def tls_mode(rule: DestinationRule, subset: str, port: int) -> str | None:
    """What decides whether endpoints are spoken to in the mesh's own TLS; None: they decide (istiod's mtlsChecker).

    Unlike in the cluster itself, a port's settings without `tls` leave the host's in force.
    """
    own = policy_of_subset(rule, subset)
    return _tls_mode(own, port) or _tls_mode(rule.traffic_policy, port)


def service_hash(rule: DestinationRule, port: int) -> ConsistentHashLB | None:
    """Of requests for which no VirtualService has a route (istiod's hashForService)."""
    return _port_hash(rule.traffic_policy, port) or _hash(rule.traffic_policy)


def destination_hash(rule: DestinationRule, destination: Destination) -> ConsistentHashLB | None:
    """Of a route's destination; settings of a port count where the route names it (istiod's HashForHTTPDestination)."""
    port = destination.port.number if destination.port is not None else 0
    own = policy_of_subset(rule, destination.subset)
    host = rule.traffic_policy
    return _port_hash(own, port) or _hash(own) or _port_hash(host, port) or _hash(host)


def _tls_mode(policy: TrafficPolicy | None, port: int) -> str | None:
    own = port_level(policy, port)
    if own is not None and own.tls is not None:
        return own.tls.mode
    return policy.tls.mode if policy is not None and policy.tls is not None else None


def _hash(policy: TrafficPolicy | PortTrafficPolicy | None) -> ConsistentHashLB | None:
    return policy.load_balancer.consistent_hash if policy is not None and policy.load_balancer is not None else None


def _port_hash(policy: TrafficPolicy | None, port: int) -> ConsistentHashLB | None:
    return _hash(port_level(policy, port))
