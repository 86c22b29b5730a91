"""The admin API's shapes, and who may ask."""

import pytest

from tests.controlplane.mesh import Mesh, virtual_service


@pytest.fixture
async def mesh(tmp_path):
    mesh = Mesh(tmp_path)
    async with mesh.registry_running():
        await mesh.write()
        async with mesh.control_plane_running() as plane:
            await plane.state.synced.wait()
            yield mesh
    for sock in (mesh.registry_sock, mesh.xds_sock, mesh.admin_sock):
        sock.close()


async def test_proxies_say_who_is_connected_in_sync_and_healthy(mesh):
    async with mesh.sidecar_running() as sidecar:
        await sidecar.health(healthy=True, detail="ok")

        shown = {}

        async def is_synced():  # with what came of the health report, too
            shown.update(await proxy(mesh))
            return shown["synced"] and shown["version_acked"] == sidecar.version

        await mesh.until(is_synced)
    assert (shown["service"], shown["version"], shown["namespace"]) == ("reviews", "v1", "default")
    assert (shown["connected"], shown["healthy"], shown["detail"], shown["error"]) == (True, True, "ok", None)
    assert shown["version_sent"] == shown["version_acked"] == sidecar.version
    assert shown["last_seen"].endswith("Z")


async def test_what_only_the_traffic_tells_reaches_the_proxys_entry(mesh):
    async with mesh.sidecar_running() as sidecar:
        assert (await proxy(mesh))["calls_out"] is None
        await sidecar.health(h2_ports=[9080], calls_out=True, version="1.2.3")
        shown = await proxy(mesh)
    assert (shown["h2_ports"], shown["calls_out"], shown["sidecar_version"]) == ([9080], True, "1.2.3")


async def proxy(mesh, name="reviews-v1"):
    _, answer = await mesh.admin("/v1/proxies")
    return next(one for one in answer["proxies"] if one["workload"] == name)


async def test_a_proxys_configuration_is_what_it_was_sent(mesh):
    await mesh.generation(await mesh.apply(virtual_service("reviews")))
    status, answer = await mesh.admin("/v1/proxies/reviews-v1/config")
    assert status == 200
    assert answer["routes"] == [{"name": "reviews"}]
    assert {"listeners", "routes", "clusters", "endpoints"} <= answer.keys()


async def test_an_unknown_workload_is_404_and_says_which_there_are(mesh):
    status, answer = await mesh.admin("/v1/proxies/nobody/config")
    assert status == 404
    assert "ratings-v1, reviews-v1" in answer["error"]


async def test_a_wait_that_is_no_duration_is_400(mesh):
    assert (await mesh.admin("/v1/generations/x", params={"wait": "soon"}))[0] == 400


async def test_status_names_the_generation_and_the_registrys_state(mesh):
    generation = await mesh.apply(virtual_service("reviews"))
    await mesh.generation(generation)
    _, answer = await mesh.admin("/v1/status")
    assert (answer["generation"], answer["mesh_id"], answer["ready"], answer["resources"]) == (generation, "m1", True, 1)
    assert answer["registry"]["state"] == "synced"


async def test_metrics_count_pushes_and_connected_proxies(mesh):
    async with mesh.sidecar_running():
        _, text = await mesh.admin("/metrics")
    assert 'pilot_xds_pushes{type="listeners"} 1' in text
    assert 'pilot_xds{version="devmesh"} 1' in text


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=["host", "origin"])
async def test_a_foreign_host_or_origin_is_refused(mesh, headers):
    assert (await mesh.admin("/v1/proxies", headers=headers))[0] == 403
