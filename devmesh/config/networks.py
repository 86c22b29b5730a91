"""Routes between workloads that no network joins: the mesh carries no data from one of the user's networks to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from devmesh.config.checks import Checker
from devmesh.config.istio_networking import Destination, DestinationRule, VirtualService
from devmesh.config.names import expand_host, host_matches
from devmesh.config.references import MESH, World, destinations
from devmesh.config.topology_types import Service, Workload

NO_NETWORK = "DM0013"
HINT = "put both on one network in the compose file"


def check_networks(check: Checker, world: World) -> None:
    """Says nothing where a runtime has no networks, so that every workload reaches every other."""
    if world.topology is None or not any(one.addresses for one in world.topology.workloads):
        return
    spec = check.resource.spec
    if isinstance(spec, VirtualService) and (not spec.gateways or MESH in spec.gateways):
        for path, destination in destinations(spec):
            _check_destination(check, world, spec, path, destination)
    elif isinstance(spec, DestinationRule):
        _check_rule(check, world, spec)


def _check_destination(check: Checker, world: World, spec: VirtualService, path: str, destination: Destination) -> None:
    """Callers of the route's host that are on no network of its destination's."""
    namespace = check.resource.meta.namespace
    called = [
        member for host in spec.hosts for service in _services(world, expand_host(host, namespace)) for member in _members(world, service)
    ]
    full = expand_host(destination.host, namespace)
    members = [
        member for service in _services(world, full) for member in _members(world, service, _labels(world, full, destination.subset))
    ]
    lost = _without_a_way(_callers(world, called), members)
    if members and lost:
        _say(check, f"{path}.host", lost, destination.host + (f" subset {destination.subset}" if destination.subset else ""))


def _check_rule(check: Checker, world: World, rule: DestinationRule) -> None:
    full = expand_host(rule.host, check.resource.meta.namespace)
    for service in _services(world, full):
        members = _members(world, service)
        if members and not _callers(world, members):
            message = f"spec.host: accepted, has no effect here: no other workload is on a network of {service.hostname}'s"
            check.add("warning", NO_NETWORK, "spec.host", message, HINT)
        for index, subset in enumerate(rule.subsets):
            chosen = _members(world, service, dict(subset.labels))
            lost = _without_a_way(_callers(world, members), chosen)
            if chosen and lost:
                _say(check, f"spec.subsets[{index}]", lost, f"{rule.host} subset {subset.name}")


def _say(check: Checker, path: str, lost: Sequence[Workload], what: str) -> None:
    names = ", ".join(one.name for one in lost)
    message = f"{path}: {names} {'is' if len(lost) == 1 else 'are'} on no network of {what}: such requests get 503 UH (no_healthy_upstream)"
    check.add("warning", NO_NETWORK, path, message, HINT)


def _services(world: World, host: str) -> list[Service]:
    return [one for one in world.services() if host_matches(host, one.hostname)]


def _members(world: World, service: Service, labels: dict[str, str] | None = None) -> list[Workload]:
    return [one for one in world.workloads({**service.selector, **(labels or {})}, service.namespace) if not one.gateway]


def _labels(world: World, host: str, subset: str | None) -> dict[str, str]:
    rules = [
        rule for resource, rule in world.of_kind(DestinationRule) if host_matches(expand_host(rule.host, resource.meta.namespace), host)
    ]
    return next((dict(one.labels) for rule in rules for one in rule.subsets if subset and one.name == subset), {})


def _callers(world: World, called: Sequence[Workload]) -> list[Workload]:
    """Who reaches one of them, other than they themselves and the gateway, which is on every network."""
    everybody = world.topology.workloads if world.topology else ()
    return [one for one in everybody if one not in called and not one.gateway and any(to.address_for(one) for to in called)]


def _without_a_way(callers: Iterable[Workload], members: Sequence[Workload]) -> list[Workload]:
    return [one for one in callers if one not in members and not any(to.address_for(one) for to in members)]
