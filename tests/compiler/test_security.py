"""PeerAuthentication: port over workload over namespace over mesh."""

import pytest

from devmesh.compiler.security import mtls_mode, namespace_mode, ports_of_their_own
from tests.compiler.worlds import peer_authentication, world

MESH = peer_authentication("{mtls: {mode: STRICT}}", namespace="istio-system")
NAMESPACE = peer_authentication("{mtls: {mode: DISABLE}}")
WORKLOAD = peer_authentication(
    "{selector: {matchLabels: {app: api}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8000: {mode: STRICT}}}", "own"
)


def mode(*yaml, workload="api-v1", port=6000):
    found = world(*yaml)
    return mtls_mode(found, found.topology.workload(workload), port)


@pytest.mark.parametrize(
    ("yaml", "port", "expected"),
    [
        ((), 6000, "PERMISSIVE"),
        ((MESH,), 6000, "STRICT"),
        ((MESH, NAMESPACE), 6000, "DISABLE"),
        ((MESH, NAMESPACE, WORKLOAD), 6000, "PERMISSIVE"),
        ((MESH, NAMESPACE, WORKLOAD), 8000, "STRICT"),
    ],
)
def test_the_closest_policy_holds(yaml, port, expected):
    assert mode(*yaml, port=port) == expected


def test_unset_inherits():
    unset = peer_authentication("{selector: {matchLabels: {app: api}}, mtls: {mode: UNSET}}", "own")
    assert mode(MESH, unset) == "STRICT"


def test_a_selector_leaves_other_workloads_alone():
    assert mode(WORKLOAD, workload="web-v1", port=8000) == "PERMISSIVE"


def test_a_namespaces_policy_stays_in_it():
    assert namespace_mode(world(NAMESPACE), "default") == "DISABLE"
    assert namespace_mode(world(NAMESPACE), "istio-system") == "PERMISSIVE"


def test_the_ports_that_a_policy_names_are_known():
    found = world(WORKLOAD)
    assert ports_of_their_own(found, found.topology.workload("api-v1")) == [8000]
    assert ports_of_their_own(found, found.topology.workload("web-v1")) == []
