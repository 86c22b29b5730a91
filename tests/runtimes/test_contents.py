"""What is told of a mesh that is not in sync; MeshConfig by profile; files that hold errors."""

import pytest
from aiohttp import ClientSession, web

from devmesh.ca.tokens import TokenStore
from devmesh.config.operator.settings import choose
from devmesh.config.topology import load_topology
from devmesh.config.topology_types import Workload
from devmesh.errors import DevmeshError
from devmesh.runtimes.contents import ControlPlaneView, kept_settings, load_resources, mesh_config, mint_tokens


@pytest.fixture
async def control():
    """A control plane that says what the test puts into it; away when `said` is empty."""
    said = {}

    async def answer(request):
        return web.json_response(said[request.path]) if request.path in said else web.Response(status=503)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession() as session:
        yield ControlPlaneView(session, f"http://127.0.0.1:{runner.addresses[0][1]}"), said
    await runner.cleanup()


def proxy(name, **changes):
    return {"workload": name, "connected": True, "synced": True, "error": "", "detail": ""} | changes


@pytest.mark.parametrize(
    ("proxies", "endpoints", "missing"),
    [
        ([proxy("web"), proxy("db")], ["web"], []),
        ([proxy("web")], ["web"], ["db: its sidecar has not connected to the control plane"]),
        ([proxy("web", connected=False), proxy("db")], ["web"], ["web: its sidecar has not connected to the control plane"]),
        ([proxy("web", synced=False, error="no"), proxy("db")], ["web"], ["web: its sidecar has not acknowledged its configuration no"]),
        (
            [proxy("web", detail="10.0.0.2:80: Connection refused"), proxy("db")],
            [],
            ["web: its app takes no connections: 10.0.0.2:80: Connection refused"],
        ),
    ],
)
async def test_what_is_not_so_yet_is_named(control, proxies, endpoints, missing):
    view, said = control
    said |= {"/v1/proxies": {"proxies": proxies}, "/v1/status": {"endpoints": endpoints}}
    assert [str(one) for one in await view.missing(["web", "db"], {"web"})] == missing


async def test_who_is_in_sync_is_asked_after_what_there_is_to_be_in_sync_with(control):
    """Or a sidecar that had acknowledged everything before a new endpoint would count as one that has it."""
    view, said = control
    said |= {"/v1/proxies": {"proxies": [proxy("web")]}, "/v1/status": {"endpoints": ["web"]}}
    asked, get = [], view._get

    async def noted(path):
        asked.append(path)
        return await get(path)

    view._get = noted
    assert await view.missing(["web"], {"web"}) == []
    assert asked == ["/v1/status", "/v1/proxies"]


async def test_a_control_plane_that_is_not_there_yet_means_nothing_is_so(control):
    assert len(await control[0].missing(["web", "db"], {"web"})) == 2


def test_mesh_config_is_what_up_was_told_else_the_profiles():
    assert mesh_config({}, "id")["tracing_sampling"] == 100.0
    assert mesh_config({"profile": "default"}, "id")["tracing_sampling"] == 1.0
    assert mesh_config({"mesh_config": {"tracing_sampling": 5}}, "id") == {"tracing_sampling": 5, "mesh_id": "id"}


def test_what_up_was_told_is_kept_without_what_is_the_runtimes_own():
    settings = {**choose("minimal").to_json(), "interception": "auto", "compose_profiles": []}
    assert kept_settings(settings) == choose("minimal").to_json()


def test_files_with_errors_are_refused_with_every_place(tmp_path):
    (tmp_path / "compose.yaml").write_text("name: a\nservices: {web: {image: x, expose: ['80']}}\n")
    (tmp_path / "mesh").mkdir()
    rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec: {hosts: [web], htp: []}\n"
    (tmp_path / "mesh" / "a.yaml").write_text(rule)
    with pytest.raises(DevmeshError, match=r"1 error in the mesh's resources:\n.*a.yaml:4"):
        load_resources(load_topology(tmp_path / "compose.yaml"), lambda _: None)


def test_every_workload_and_the_control_plane_get_a_token_and_the_store_keeps_hashes_alone(tmp_path):
    workload = Workload("web-v1", "shop", "web", "v1", {}, "web-account", "10.0.0.1", (80,))
    tokens = mint_tokens(tmp_path / "tokens.json", [workload])
    assert set(tokens) == {"web-v1", "controlplane"}
    store = TokenStore(tmp_path / "tokens.json")
    assert str(store.grant_of(tokens["web-v1"]).spiffe_id) == "spiffe://cluster.local/ns/shop/sa/web-account"
    kept = (tmp_path / "tokens.json").read_text()
    assert not any(token in kept for token in tokens.values())
