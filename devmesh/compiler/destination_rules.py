"""Which DestinationRule holds for whom, and what it says of one port: istiod's merging and lookup (push_context.go, destination_rule.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from devmesh.compiler.world import ROOT_NAMESPACE, World, matches, per_world
from devmesh.config.istio_destination import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    ProxyProtocol,
    RetryBudget,
    TrafficPolicy,
    TunnelSettings,
)
from devmesh.config.model import Resource, SourcePosition
from devmesh.config.names import expand_host, host_matches
from devmesh.config.topology_types import Service, Workload

EVERYWHERE, HERE = "*", "."


class Client(NamedTuple):
    """From where a rule is looked for; proxies that have this in common are told the same."""

    namespace: str
    selected_by: frozenset[str] = frozenset()  # the namespace's rules whose workloadSelector means the proxy


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A DestinationRule, or several of one host made one; `resource` is the first of them."""

    resource: Resource
    spec: DestinationRule
    export_to: frozenset[str]  # empty: everywhere
    sources: Mapping[str, SourcePosition]  # where each subset is written, and under "" the host's own policy


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one port of a host or of a subset."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


BY_PORT = ("load_balancer", "connection_pool", "outlier_detection", "tls")


@per_world
def client_of(world: World, proxy: Workload) -> Client:
    selecting = [(resource, rule.workload_selector) for resource, rule in world.destination_rules() if rule.workload_selector is not None]
    return Client(
        proxy.namespace,
        frozenset(
            resource.key.name
            for resource, selector in selecting
            if resource.key.namespace == proxy.namespace
            # No labels select every proxy, unlike a Service's selector.
            and (not selector.match_labels or matches(selector.match_labels, proxy.labels))
        ),
    )


@per_world
def rule_for(world: World, service: Service, client: Client) -> Rule | None:
    """The rule that selects the client, else the last one for all of its namespace (istiod's SidecarScope.DestinationRule)."""
    for_all = None
    for rule in _rules_for(world, service, client.namespace):
        if rule.spec.workload_selector is None:
            for_all = rule
        elif rule.resource.key.namespace == client.namespace and rule.resource.key.name in client.selected_by:
            return rule
    return for_all


@per_world
def _rules_for(world: World, service: Service, namespace: str) -> list[Rule]:
    """The client's namespace, then what the service's and the root's export to it."""
    if own := _closest(_local(world, namespace), service.hostname):
        return own
    for owner in (service.namespace, ROOT_NAMESPACE):
        found = _closest(_exported(world, owner), service.hostname)
        if seen := [rule for rule in found if not rule.export_to or rule.export_to & {EVERYWHERE, namespace}]:
            return seen
    return []


def _closest(rules: dict[str, list[Rule]], hostname: str) -> list[Rule]:
    matching = [host for host in rules if host_matches(host, hostname)]
    return rules[max(matching, key=lambda host: (host == hostname, len(host)))] if matching else []


@per_world
def _local(world: World, namespace: str) -> dict[str, list[Rule]]:
    """Of the root namespace only what it keeps to itself, so that what it exports to all is no more than a last resort there, too."""
    rules = [rule for rule in _of(world, namespace) if not rule.export_to or rule.export_to & {EVERYWHERE, HERE, namespace}]
    return _merged(rule for rule in rules if namespace != ROOT_NAMESPACE or _private(rule))


@per_world
def _exported(world: World, namespace: str) -> dict[str, list[Rule]]:
    return _merged(rule for rule in _of(world, namespace) if not _private(rule))


def _private(rule: Rule) -> bool:
    return rule.export_to in ({HERE}, {rule.resource.key.namespace})


def _of(world: World, namespace: str) -> list[Rule]:
    """By age, those with a workloadSelector first; these are never exported."""
    rules = [
        Rule(
            resource, spec, frozenset({HERE}) if spec.workload_selector is not None else frozenset(spec.export_to), _sources(resource, spec)
        )
        for resource, spec in world.destination_rules()
        if resource.key.namespace == namespace
    ]
    return sorted(rules, key=lambda rule: rule.spec.workload_selector is None)


def _sources(resource: Resource, spec: DestinationRule) -> dict[str, SourcePosition]:
    subsets = {subset.name: resource.position(f"spec.subsets[{index}]") for index, subset in enumerate(spec.subsets)}
    return {"": resource.position("spec.trafficPolicy"), **subsets}


def _merged(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    """By host: rules of the same clients become one."""
    by_host: dict[str, list[Rule]] = {}
    for rule in rules:
        known = by_host.setdefault(expand_host(rule.spec.host, rule.resource.key.namespace), [])
        apart = True
        for index, one in enumerate(known):
            meets, same = _meet(one, rule)
            if meets:
                known[index] = _joined(one, rule)
            apart = not same if meets else True
        if apart:
            known.append(rule)
    return by_host


def _meet(known: Rule, new: Rule) -> tuple[bool, bool]:
    """Whether `known` gains what `new` says, and whether `new` is not kept by itself then.

    istiod's mergeDestinationRule with ENABLE_ENHANCED_DESTINATIONRULE_MERGE, which is the default.
    """
    same = known.export_to == new.export_to
    if not same and not (known.export_to and new.export_to >= known.export_to):
        return False, False
    selectors = known.spec.workload_selector, new.spec.workload_selector
    if None not in selectors and selectors[0] != selectors[1]:
        return False, False
    return True, same or selectors[0] == selectors[1]


def _joined(known: Rule, new: Rule) -> Rule:
    """The older one gains new subsets, and a policy if it has none."""
    names = {subset.name for subset in known.spec.subsets}
    more = tuple(subset for subset in new.spec.subsets if subset.name not in names)
    policy = known.spec.traffic_policy or new.spec.traffic_policy
    sources = {**new.sources, **known.sources}
    if known.spec.traffic_policy is None and policy is not None:
        sources[""] = new.sources[""]
    return replace(
        known, sources=sources, spec=known.spec.model_copy(update={"subsets": (*known.spec.subsets, *more), "traffic_policy": policy})
    )


def policy_for(policy: TrafficPolicy | None, port: int) -> Policy:
    """portLevelSettings replace the whole policy of their port, as istiod does."""
    own = port_level(policy, port)
    if own is not None:
        return _policy(own)
    return _policy(policy) if policy is not None else Policy()


def port_level(policy: TrafficPolicy | None, port: int) -> PortTrafficPolicy | None:
    levels = policy.port_level_settings if policy is not None else ()
    return next((one for one in levels if one.port is not None and one.port.number == port), None)


def _policy(given: TrafficPolicy | PortTrafficPolicy) -> Policy:
    return Policy(**{name: getattr(given, name, None) for name in Policy.__dataclass_fields__})


def subset_policy(rule: DestinationRule, subset: str, port: int) -> Policy:
    """What holds for one port of a subset; "" or a name that the rule does not have is the host's own (istiod's MergeSubsetTrafficPolicy)."""
    base = policy_for(rule.traffic_policy, port)
    own = policy_of_subset(rule, subset)
    if own is None:
        return base
    over = policy_for(own, port)
    given = {name: getattr(over, name) for name in Policy.__dataclass_fields__ if getattr(over, name) is not None}
    if rule.traffic_policy is not None and port_level(own, port) is not None:
        given |= {name: getattr(over, name) for name in BY_PORT}
    return replace(base, **given)


def policy_of_subset(rule: DestinationRule, subset: str) -> TrafficPolicy | None:
    """What a subset says itself, nothing merged."""
    return next((one.traffic_policy for one in rule.subsets if one.name == subset), None) if subset else None


def subset_labels(rule: DestinationRule | None, subset: str) -> dict[str, str]:
    return next((dict(one.labels) for one in rule.subsets if one.name == subset), {}) if rule is not None and subset else {}
