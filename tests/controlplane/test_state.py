"""What a mistake in one resource does to the others: nothing."""

import threading
from dataclasses import replace

import pytest

from devmesh.config.model import Diagnostic, SourcePosition
from devmesh.controlplane.state import CompileOutput, parse_resource
from devmesh.registry.client import Registry
from devmesh.registry.resources import write_resources
from tests.controlplane.mesh import Mesh, compile_names, virtual_service
from tests.support.waiting import LIMIT, until


def test_a_stored_resource_is_read_again_with_its_own_places():
    stored = replace(virtual_service("reviews"), lines={"spec.http[0]": 12}, columns={"spec.http[0]": 5})
    resource, diagnostics = parse_resource(stored)
    assert diagnostics == ()
    assert str(resource.position("spec.http[0].route")) == "reviews.yaml:12:5"
    assert resource.key == stored.key
    assert resource.owner == "apply"


def test_a_stored_resource_that_is_no_longer_valid_is_a_diagnostic_at_its_file():
    stored = virtual_service("reviews")
    broken = replace(stored, document=dict(stored.document) | {"spec": {"hostz": ["reviews"]}})
    resource, diagnostics = parse_resource(broken)
    assert resource is None
    assert diagnostics
    assert diagnostics[0].where.file == "reviews.yaml"


@pytest.fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path)
    async with mesh.registry_running():
        await mesh.write()
        yield mesh
    for sock in (mesh.registry_sock, mesh.xds_sock, mesh.admin_sock):
        sock.close()


async def test_an_invalid_resource_in_the_kv_is_reported_and_the_rest_is_pushed(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:
        good, bad = virtual_service("good"), virtual_service("bad", "ratings")
        bad = replace(bad, document=dict(bad.document) | {"spec": {"hostz": ["ratings"]}})
        async with Registry(mesh.registry_url, "t0ken") as registry:
            await registry.kv_put(f"{good.kv_key}-noise", b"not gzip")
            generation = await write_resources(registry, [good, bad])
        answer = await mesh.generation(generation)
        assert answer["by"]["reviews-v1"]["state"] == "acked"
        assert {one["file"] for one in answer["diagnostics"]} == {"bad.yaml", f"{good.kv_key}-noise"}
        assert [route["name"] for route in sidecar.got["routes"]] == ["reviews"]


async def test_a_workload_whose_compile_fails_keeps_what_it_has(mesh):
    def failing(wanted):
        output = compile_names(wanted)
        if len(wanted.resources) < 2:
            return output
        problem = Diagnostic("error", "compile", SourcePosition("b.yaml", 3), "no such subset")
        return CompileOutput({name: shot for name, shot in output.snapshots.items() if name != "reviews-v1"}, (problem,))

    mesh.compile_all = failing
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:
        await mesh.generation(await mesh.apply(virtual_service("a")))
        answer = await mesh.generation(await mesh.apply(virtual_service("b", "ratings")))
        assert [one["message"] for one in answer["diagnostics"]] == ["no such subset"]
        assert not answer["by"]["reviews-v1"]["changed"]
        assert answer["by"]["ratings-v1"]["changed"]
        assert [route["name"] for route in sidecar.got["routes"]] == ["reviews"]


async def test_an_endpoint_is_given_out_when_it_is_compiled_and_not_when_the_registry_has_it(mesh):
    compiling, go_on = threading.Event(), threading.Event()

    def held(wanted):
        if wanted.healthy:
            compiling.set()
            go_on.wait(LIMIT)
        return compile_names(wanted)

    mesh.compile_all = held
    async with mesh.control_plane_running() as plane, mesh.sidecar_running() as sidecar:
        await sidecar.health()
        await until(compiling.is_set)
        assert plane.state.healthy() == {"reviews-v1"}
        assert (await mesh.admin("/v1/status"))[1]["endpoints"] == []
        go_on.set()
        await until(lambda: plane.state.given_out() == {"reviews-v1"})
        assert (await mesh.admin("/v1/status"))[1]["endpoints"] == ["reviews-v1"]
