"""What a workload is registered as."""

import pytest

from devmesh.config.topology import Topology
from devmesh.controlplane.registrar import registration
from tests.controlplane.mesh import TOPOLOGY


@pytest.fixture
def topology():
    gateway = {
        "name": "istio-ingressgateway",
        "namespace": "istio-system",
        "ip": "127.7.0.9",
        "labels": {"istio": "ingressgateway"},
        "serviceAccount": "istio-ingressgateway",
        "gateway": True,
        "service": "istio-ingressgateway",
        "version": "v1",
        "ports": [8080],
    }
    return Topology.from_json({"services": TOPOLOGY["services"], "workloads": [*TOPOLOGY["workloads"], gateway]})


def test_a_workload_is_an_instance_of_its_service_with_all_a_reader_of_the_catalogue_needs(topology):
    entry = registration(topology, topology.workload("reviews-v1"), healthy=False, ttl=15.0)
    assert (entry.workload, entry.service, entry.address, entry.port) == ("reviews-v1", "reviews", "127.7.0.2", 9080)
    assert entry.vip == "240.240.0.2"
    assert entry.meta["service_account"] == "bookinfo-reviews"
    assert entry.meta["labels"] == '{"app":"reviews","version":"v1"}'
    assert entry.check_id == "service:reviews-v1"


def test_the_gateway_is_registered_under_istios_name_without_a_vip_of_its_own(topology):
    entry = registration(topology, topology.workload("istio-ingressgateway"), healthy=True, ttl=15.0)
    assert (entry.service, entry.port, entry.vip) == ("istio-ingressgateway", 8080, "")
