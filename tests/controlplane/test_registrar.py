"""What a workload is registered as, and when the registry is told of it again."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from devmesh.config.topology import Topology
from devmesh.controlplane.push import Proxy, Pushes
from devmesh.controlplane.registrar import Registrar, registration
from devmesh.controlplane.watch import Link
from tests.controlplane.mesh import TOPOLOGY
from tests.support.virtual_time import in_virtual_time, now, pass_time


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


class ScriptedRegistry:
    def __init__(self):
        self.told = []

    async def ttl_pass(self, check, detail):
        self.told.append((check, detail))
        return True


class ScriptedWatch:
    def __init__(self):
        self.link, self.link_changed = Link.SYNCED, asyncio.Event()

    def becomes(self, link):
        self.link = link
        self.link_changed.set()
        self.link_changed = asyncio.Event()


@in_virtual_time
async def test_a_registry_that_is_back_hears_at_once_of_everybody_connected():
    registry, watch, pushes = ScriptedRegistry(), ScriptedWatch(), Pushes(clock=now)
    for name, polls in (("web-v1", 1), ("gone-v1", 0)):
        pushes.proxies[name] = Proxy(name, "default", open_polls=polls)
    registrar = Registrar(registry, watch, SimpleNamespace(trust=SimpleNamespace(reported={})), pushes)
    registrar._registered = {"web-v1", "gone-v1"}
    for name in ("web-v1", "gone-v1"):
        registrar.report(name, healthy=True, detail="it listens")
    running = asyncio.create_task(registrar.run())
    await pass_time(1)
    registry.told.clear()
    watch.becomes(Link.UNREACHABLE)
    await pass_time(60)
    assert registry.told == []
    watch.becomes(Link.SYNCED)
    await pass_time(0.1)
    assert registry.told == [("service:web-v1", "it listens")]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
