"""Registry, control plane and sidecars together: applied, acknowledged, refused, absent, lost."""

import asyncio

import aiohttp
import pytest

from devmesh.registry.client import Registry
from tests.controlplane.certificates import Authority
from tests.controlplane.mesh import TOKEN, Mesh, compile_names, virtual_service


@pytest.fixture
def bare_mesh(tmp_path):
    mesh = Mesh(tmp_path)
    yield mesh
    for sock in (mesh.registry_sock, mesh.xds_sock, mesh.admin_sock):
        sock.close()


@pytest.fixture
async def mesh(bare_mesh):
    async with bare_mesh.registry_running():
        await bare_mesh.write()
        yield bare_mesh


async def instances(mesh, service):
    async with Registry(mesh.registry_url, TOKEN) as registry:
        return {instance.id: instance.status for instance in (await registry.health_service(service))[1]}


async def until_status(mesh, status):
    async def holds():
        return await instances(mesh, "reviews") == {"reviews-v1": status}

    await mesh.until(holds)


async def test_apply_returns_when_the_sidecar_runs_the_new_configuration(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:
        answer = await mesh.generation(await mesh.apply(virtual_service("reviews")))
        assert answer["compiled"]
        assert answer["by"]["reviews-v1"] == {"workload": "reviews-v1", "state": "acked", "error": None, "changed": True}
        assert [route["name"] for route in sidecar.got["routes"]] == ["reviews"]


async def test_an_absent_sidecar_is_disconnected_and_holds_nobody_up(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running():
        answer = await mesh.generation(await mesh.apply(virtual_service("reviews")))
        assert answer["by"]["ratings-v1"]["state"] == "disconnected"
        assert answer["by"]["reviews-v1"]["state"] == "acked"


async def test_a_refusal_is_reported_in_the_sidecars_words_and_the_next_generation_heals_it(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:
        first = await mesh.generation(await mesh.apply(virtual_service("reviews")))
        in_force = sidecar.version
        sidecar.refuse = "route reviews: unknown cluster"
        refused = await mesh.generation(await mesh.apply(virtual_service("broken", "ratings")))
        assert first["by"]["reviews-v1"]["state"] == "acked"
        assert refused["by"]["reviews-v1"]["state"] == "nacked"
        assert refused["by"]["reviews-v1"]["error"] == "route reviews: unknown cluster"
        assert sidecar.version == in_force
        sidecar.refuse = None
        healed = await mesh.generation(await mesh.apply(virtual_service("broken", "details")))
        assert healed["by"]["reviews-v1"]["state"] == "acked"


async def test_a_generation_that_changes_nothing_is_acknowledged_already(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running():
        await mesh.generation(await mesh.apply(virtual_service("reviews")))
        answer = await mesh.generation(await mesh.apply(virtual_service("reviews")))
        assert answer["by"]["reviews-v1"]["state"] == "acked"
        assert not answer["by"]["reviews-v1"]["changed"]


async def test_a_generation_overtaken_by_another_is_answered_by_that_one(mesh):
    first = await mesh.apply(virtual_service("one"))
    await mesh.apply(virtual_service("two", "ratings"))
    async with mesh.control_plane_running(), mesh.sidecar_running():
        answer = await mesh.generation(first)
        assert answer["compiled"]
        assert answer["generation"] == first
        assert answer["by"]["reviews-v1"]["state"] == "acked"


async def test_a_connected_sidecar_registers_its_workload_and_its_word_is_its_health(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:

        async def registered():
            return await instances(mesh, "reviews") == {"reviews-v1": "critical"}

        await mesh.until(registered)
        assert (await sidecar.health(healthy=True))[0] == 200
        await until_status(mesh, "passing")

        async def has_endpoint():
            return sidecar.got.get("endpoints") == [{"cluster_name": "reviews-v1"}]

        await mesh.until(has_endpoint)
        await sidecar.health(healthy=False, detail="app exited")
        await until_status(mesh, "critical")

        async def has_none():
            return sidecar.got.get("endpoints") == []

        await mesh.until(has_none)


@pytest.mark.parametrize(
    ("workload", "account", "words"),
    [
        ("ratings-v1", "bookinfo-reviews", "bookinfo-ratings, the certificate says"),
        ("nobody-v1", "bookinfo-reviews", "no workload nobody-v1"),
    ],
    ids=["another workload's name", "an unknown name"],
)
async def test_a_node_that_is_not_its_certificate_is_refused(mesh, workload, account, words):
    async with mesh.control_plane_running() as plane, mesh.sidecar(workload, account) as sidecar:
        await plane.state.synced.wait()
        status, text = await sidecar.poll("listeners")
        assert status == 403
        assert words in text


async def test_a_certificate_of_another_authority_does_not_get_through_the_handshake(mesh):
    async with mesh.control_plane_running() as plane:
        await plane.state.synced.wait()
        async with mesh.sidecar(authority=Authority("other")) as stranger:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await stranger.poll("listeners")


async def test_a_poll_without_news_ends_as_304_before_the_client_gives_up(mesh):
    async with mesh.control_plane_running() as plane, mesh.sidecar() as sidecar:
        await plane.state.synced.wait()
        _, answer = await sidecar.poll("listeners")
        assert (await sidecar.poll("listeners", answer["version_info"], answer["nonce"], timeout_ms=100))[0] == 304


async def test_an_apply_sends_each_sidecar_the_types_that_changed_in_one_answer(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:
        await mesh.until(lambda: _is_ok(sidecar))
        await until_status(mesh, "passing")
        await mesh.generation(await mesh.apply(virtual_service("first")))
        sidecar.answers.clear()
        answer = await mesh.generation(await mesh.apply(virtual_service("second", "ratings")))
        assert answer["by"]["reviews-v1"]["state"] == "acked"
        assert sidecar.answers == [["routes"]]
        assert [one["name"] for one in sidecar.got["routes"]] == ["ratings", "reviews"]
        assert sidecar.got["listeners"], "what was not sent again stays"


async def test_what_is_no_poll_is_told_what_one_is(mesh):
    async with mesh.control_plane_running() as plane, mesh.sidecar() as sidecar:
        await plane.state.synced.wait()
        for path, words in (("aggregated", "with requests"), ("nonsense", "types are")):
            status, text = await sidecar.post(f"/v3/discovery:{path}", {"node": sidecar.node})
            assert status in (400, 404)
            assert words in text


async def test_a_restarted_control_plane_keeps_endpoints_whose_check_ran_out_meanwhile(mesh):
    async with mesh.control_plane_running(), mesh.sidecar() as sidecar:
        await mesh.until(lambda: _is_ok(sidecar))
        await until_status(mesh, "passing")
    async with Registry(mesh.registry_url, TOKEN) as registry:
        await registry.ttl_fail("service:reviews-v1", "TTL expired")
    async with mesh.control_plane_running() as plane:
        await plane.state.synced.wait()
        assert plane.state.healthy() == {"reviews-v1"}


async def _is_ok(sidecar):
    return (await sidecar.health(healthy=True))[0] == 200


async def test_an_apply_right_after_a_restart_waits_for_the_sidecars_on_their_way_back(mesh):
    async with mesh.control_plane_running(), mesh.sidecar_running() as sidecar:
        await sidecar.health(healthy=True)
        await until_status(mesh, "passing")
    async with mesh.control_plane_running() as plane:
        generation = await mesh.apply(virtual_service("reviews"))
        await plane.state.synced.wait()
        waiting = asyncio.create_task(mesh.generation(generation, wait="5s"))
        async with mesh.sidecar_running():
            assert (await waiting)["by"]["reviews-v1"]["state"] == "acked"


async def test_after_one_ttl_a_silent_workload_loses_its_endpoint(mesh):
    mesh.ttl = 1.0
    async with mesh.control_plane_running(), mesh.sidecar() as sidecar:
        await mesh.until(lambda: _is_ok(sidecar))
        await until_status(mesh, "passing")
    compiled = []  # looked at afterwards: a busy machine may get here later than a second

    def noting(wanted):
        compiled.append(wanted.healthy)
        return compile_names(wanted)

    mesh.compile_all = noting
    async with mesh.control_plane_running() as plane:

        async def is_gone():
            return plane.state.synced.is_set() and plane.state.given_out() == frozenset()

        await mesh.until(is_gone)
    assert compiled == [{"reviews-v1"}, frozenset()]


async def test_a_registry_that_comes_back_empty_is_lost_and_pushes_nothing(bare_mesh):
    mesh = bare_mesh
    async with mesh.control_plane_running() as plane:
        async with mesh.registry_running("first"):
            await mesh.write()
            async with mesh.sidecar_running() as sidecar:
                await mesh.until(lambda: _is_ok(sidecar))
                await mesh.generation(await mesh.apply(virtual_service("reviews")))
        before = plane.pushes.proxies["reviews-v1"].snapshot
        async with mesh.registry_running("second"), mesh.sidecar_running() as sidecar:

            async def is_lost():
                return (await mesh.admin("/v1/status"))[1]["registry"]["state"] == "lost"

            async def is_back():
                return "reviews-v1" in await instances(mesh, "reviews")

            await mesh.until(is_lost)
            await mesh.until(is_back)
            assert plane.pushes.proxies["reviews-v1"].snapshot == before
            assert (await mesh.admin("/healthz/ready"))[0] == 503
            await mesh.write(mesh_id="m2")
            answer = await mesh.generation(await mesh.apply(virtual_service("ratings", "ratings")))
            assert answer["by"]["reviews-v1"]["state"] == "acked"
            assert [route["name"] for route in sidecar.got["routes"]] == ["ratings"]


async def test_the_control_plane_waits_for_a_registry_that_is_late(bare_mesh):
    mesh = bare_mesh
    async with mesh.control_plane_running() as plane:
        status, _ = await mesh.admin("/healthz/ready")
        assert status == 503
        async with mesh.registry_running():
            await mesh.write()
            await plane.state.synced.wait()
            assert (await mesh.admin("/healthz/ready"))[0] == 200


async def test_a_sidecar_that_dies_during_an_apply_ends_the_wait_as_disconnected(mesh):
    async with mesh.control_plane_running():
        async with mesh.sidecar_running():
            pass
        answer = await mesh.generation(await mesh.apply(virtual_service("reviews")), wait="20s")
        assert answer["by"]["reviews-v1"]["state"] == "disconnected"
