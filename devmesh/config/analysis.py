"""Checks of a whole configuration: Istio's validation and analyzers with their codes, and what has no effect here.

Severity: an error is what istiod refuses, what refers to nothing, and what would be unsafe to ignore; `apply` refuses those.
What istiod takes and only `istioctl analyze` minds is a warning, with Istio's code. Weights that do not add up to 100 are
such a warning (istiod takes them in proportion); a total of 0 is an error, as in istiod.
Codes: ISTnnnn are Istio's; DM0000-DM0004 and DM0009 reading, DM0005 not yet, DM0006 unsafe to ignore, DM0007 no effect,
DM0008 HTTP rule on another protocol's port, DM0010 compose file, DM0011 weights, DM0012 shadowed resource, DM0013 no network in common.
"""

from collections.abc import Iterable, Sequence

from devmesh.config.check_delegates import check_delegates
from devmesh.config.check_destination_rule import check_destination_rule
from devmesh.config.check_gateway import check_gateway, check_peer_authentication
from devmesh.config.check_metadata import check_metadata
from devmesh.config.check_secret import check_secret
from devmesh.config.check_service_entry import check_service_entry
from devmesh.config.check_virtual_service import check_virtual_service
from devmesh.config.checks import Checker
from devmesh.config.effects import without_effect
from devmesh.config.istio_networking import DestinationRule, Gateway, VirtualService
from devmesh.config.istio_security import PeerAuthentication
from devmesh.config.istio_service_entry import ServiceEntry
from devmesh.config.kubernetes import Secret
from devmesh.config.model import Diagnostic, Resource
from devmesh.config.networks import check_networks
from devmesh.config.reachability import check_reachability
from devmesh.config.references import World, check_conflicts, check_references
from devmesh.config.support import support_diagnostics
from devmesh.config.topology_types import Topology


def analyze(resources: Sequence[Resource], topology: Topology | None = None) -> list[Diagnostic]:
    """Check resources that are valid by themselves (loader.py); without a topology nothing is said about hosts and workloads."""
    world = World(resources, topology)
    checks = [Checker(resource) for resource in resources]
    for check in checks:
        check.found += support_diagnostics(check.resource)
        _check_alone(check)
        check_references(check, world)
        check_delegates(check, resources)
        check_networks(check, world)
    check_conflicts(checks)
    return merge(check.found for check in checks)


def merge(groups: Iterable[Iterable[Diagnostic]]) -> list[Diagnostic]:
    """Put diagnostics of several sources together, each once."""
    return list(dict.fromkeys(one for group in groups for one in group))


def _check_alone(check: Checker) -> None:
    check_metadata(check)
    spec = check.resource.spec
    if isinstance(spec, VirtualService):
        check_virtual_service(check, spec)
        check_reachability(check, spec)
    elif isinstance(spec, DestinationRule):
        check_destination_rule(check, spec)
    elif isinstance(spec, Gateway):
        check_gateway(check, spec)
    elif isinstance(spec, ServiceEntry):
        check_service_entry(check, spec)
    elif isinstance(spec, Secret):
        check_secret(check, spec)
    elif isinstance(spec, PeerAuthentication):
        check_peer_authentication(check, spec)
    if spec is not None:
        for path, reason in without_effect(spec):
            check.no_effect(path, reason)
