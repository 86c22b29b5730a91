"""The real compiler behind the control plane."""

from dataclasses import replace

import pytest

from devmesh.config.topology import Topology
from devmesh.controlplane import compile as module
from devmesh.controlplane.compile import compile_all
from devmesh.controlplane.state import CompileInput, parse_resource
from devmesh.xds.snapshot import Snapshot
from tests.controlplane.mesh import TOPOLOGY, Mesh, virtual_service


def given(*stored, healthy=("ratings-v1", "reviews-v1")):
    resources = tuple(parse_resource(one)[0] for one in stored)
    return CompileInput(Topology.from_json(TOPOLOGY), resources, {"tracing_sampling": 100.0}, frozenset(healthy))


def test_every_workload_gets_a_consistent_snapshot():
    output = compile_all(given(virtual_service("reviews")))
    assert output.diagnostics == ()
    assert set(output.snapshots) == {"ratings-v1", "reviews-v1"}
    for snapshot in output.snapshots.values():
        assert snapshot.consistent() == []
        assert snapshot.resources["listeners"]


def test_only_healthy_workloads_are_endpoints():
    whole, part = (compile_all(given(healthy=healthy)).snapshots["ratings-v1"] for healthy in (("reviews-v1",), ()))
    assert whole.version != part.version
    assert "127.7.0.2" in str(whole.resources["endpoints"])
    assert "127.7.0.2" not in str(part.resources["endpoints"])


def test_a_workload_the_compiler_fails_on_is_a_diagnostic_and_the_others_are_compiled(monkeypatch):

    def breaking(world, name, real=module.compile_proxy):
        if name == "reviews-v1":
            raise KeyError("subset")
        return real(world, name)

    monkeypatch.setattr(module, "compile_proxy", breaking)
    output = compile_all(given())
    assert set(output.snapshots) == {"ratings-v1"}
    assert "reviews-v1 keeps its configuration" in output.diagnostics[0].message


@pytest.fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path, compile_all)
    async with mesh.registry_running():
        await mesh.write()
        yield mesh
    for sock in (mesh.registry_sock, mesh.xds_sock, mesh.admin_sock):
        sock.close()


async def test_yaml_in_the_kv_comes_out_as_routes_at_the_sidecar(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running(workload="ratings-v1", account="bookinfo-ratings") as sidecar:
        answer = await mesh.generation(await mesh.apply(virtual_service("reviews")))
        assert answer["by"]["ratings-v1"]["state"] == "acked"
        assert "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews" in str(sidecar.got["routes"])


def test_a_resource_that_the_official_descriptors_refuse_is_never_served_and_says_where(monkeypatch):

    def breaking(world, name, real=module.compile_proxy):
        compiled = real(world, name)
        if name != "reviews-v1":
            return compiled
        resources = compiled.snapshot.resources
        broken = ({**resources["listeners"][0], "nonsense": 1}, *resources["listeners"][1:])
        return replace(compiled, snapshot=Snapshot.of(**{**resources, "listeners": broken}))

    monkeypatch.setattr(module, "compile_proxy", breaking)
    output = compile_all(given())
    assert set(output.snapshots) == {"ratings-v1"}
    (found,) = output.diagnostics
    assert "reviews-v1 keeps its configuration" in found.message
    assert 'Listener: Message type "envoy.config.listener.v3.Listener" has no field named "nonsense"' in found.message
