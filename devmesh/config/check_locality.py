"""What istiod's validation says of the localities a DestinationRule balances over."""

from collections.abc import Iterable

from devmesh.config.checks import Checker
from devmesh.config.istio_networking import (
    LocalityFailover,
    LocalityLoadBalancerSetting,
    OutlierDetection,
    ZoneAwareLoadBalancerSetting,
)

_TOPOLOGY_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


def check_locality(check: Checker, path: str, locality: LocalityLoadBalancerSetting | None, outlier: OutlierDetection | None) -> None:
    if locality is None:
        return
    if locality.distribute and locality.failover:
        check.error(path, "can not simultaneously specify 'distribute' and 'failover'")
    if locality.failover and any(one in _TOPOLOGY_LABELS for one in locality.failover_priority):
        check.error(path, "can not simultaneously set 'failover' and a topology label in 'failover_priority'")
    for index, share in enumerate(locality.distribute):
        at = f"{path}.distribute[{index}].to"
        if any(not 0 < weight <= 100 for weight in share.to.values()):
            check.error(at, "locality weight must be in range [1, 100]")
        elif sum(share.to.values()) != 100:
            check.error(at, f"total locality weight {sum(share.to.values())} != 100")
        # istiod takes the map in any order, so that a wildcard after what it covers is refused now and then: here always.
        _check_overlap(check, sorted(((at, to) for to in share.to), key=lambda one: not one[1].endswith("*")))
    _check_overlap(check, [(f"{path}.distribute[{index}].from", share.from_) for index, share in enumerate(locality.distribute)])
    _check_failover(check, path, locality.failover, locality.failover_priority, outlier)


def check_zone_aware(check: Checker, path: str, zones: ZoneAwareLoadBalancerSetting | None, outlier: OutlierDetection | None) -> None:
    if zones is None:
        return
    if zones.min_cluster_size == 0:
        check.error(f"{path}.minClusterSize", "must be at least 1")
    for index, label in enumerate(zones.failover_priority):
        if label in _TOPOLOGY_LABELS:
            at = f"{path}.failoverPriority[{index}]"
            check.error(at, f"'failover_priority' for zone aware lb must not use topology label '{label}': zones are handled automatically")
    _check_failover(check, path, zones.failover, zones.failover_priority, outlier)


def _check_failover(
    check: Checker, path: str, failover: Iterable[LocalityFailover], priority: tuple[str, ...], outlier: OutlierDetection | None
) -> None:
    if (failover or priority) and outlier is None:
        check.warn(path, "outlier detection policy must be provided for failover")
    for index, one in enumerate(failover):
        at = f"{path}.failover[{index}]"
        if one.from_ == one.to:
            check.error(at, "locality lb failover settings must specify different regions")
        if "/" in one.from_ + one.to:
            check.error(at, "locality lb failover only specify region")
        if "*" in one.from_ + one.to:
            check.error(at, "locality lb failover region should not contain '*' wildcard")


def _check_overlap(check: Checker, localities: Iterable[tuple[str, str]]) -> None:
    """Hold region[/zone[/subzone]], of which the last may be "*", against each other in the order in which they are tried."""
    before: list[list[str]] = []
    for path, locality in localities:
        parts = locality.split("/", 2)
        if "*" in locality[:-1]:
            check.error(path, f"locality {locality} wildcard '*' number can not exceed 1 and must be in the end")
        elif "" in parts:
            check.error(path, f"locality {locality} must not contain empty region/zone/subzone info")
        elif any(_overlaps(one, parts) for one in before):
            check.error(path, f"locality {locality} overlap with previous specified ones")
        before.append(parts)


def _overlaps(before: list[str], after: list[str]) -> bool:
    covering = before[:-1] if before[-1] == "*" else before
    return after[: len(covering)] == covering or (after[-1] != "*" and before[: len(after)] == after)
