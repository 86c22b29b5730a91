"""Which containers are paused and let go for faults, as a table; what a kill leaves to the restart policy."""

from dataclasses import replace

import pytest

from devmesh.config.injection import FaultRequest
from devmesh.registry.resources import delete_resources, write_resources
from devmesh.runtimes.docker import holding
from devmesh.runtimes.docker.engine import Container
from devmesh.runtimes.docker.holding import carry_out, kill_app
from devmesh.runtimes.files import MeshFiles
from tests.runtimes.faulty import mesh_registry, stored

WEB = Container(
    "web", "id-web", "shop-web-1", "running", "", 0, "", 0, "", {"devmesh.role": "app", "devmesh.workload": "web"}, "", "no", {}
)


class Engine:
    """`did` is what it was told, in order; containers follow."""

    def __init__(self, *containers):
        self.did, self.apps = [], {one.id: one for one in containers}

    def containers(self, project):
        assert project == "shop"
        return list(self.apps.values())

    def pause(self, container):
        self._do("pause", container, "paused")

    def unpause(self, container):
        self._do("unpause", container, "running")

    def kill(self, container):
        self._do("kill", container, "exited")

    def start(self, container):
        self._do("start", container, "running")

    def _do(self, what, container, state):
        self.did.append(f"{what} {container}")
        self.apps[container] = replace(self.apps[container], state=state)

    def close(self):
        pass


@pytest.mark.parametrize(
    ("app", "wanted", "known", "did", "held", "because"),
    [
        (WEB, {"web": "f1"}, [], ["pause id-web"], ["web"], "a fault wants it"),
        (replace(WEB, health="healthy"), {"web": "f1"}, [], ["pause id-web"], ["web"], "it has come up"),
        (replace(WEB, health="starting"), {"web": "f1"}, [], [], [], "it is still starting: the next look does it"),
        (replace(WEB, state="exited"), {"web": "f1"}, ["web"], [], [], "nothing runs there"),
        (replace(WEB, state="paused"), {"web": "f1"}, ["web"], [], ["web"], "it is so already"),
        (replace(WEB, state="paused"), {}, ["web"], ["unpause id-web"], [], "the fault is over"),
        (replace(WEB, state="paused"), {}, [], [], [], "a user has paused it by hand"),
        (WEB, {}, ["web"], [], [], "it was started again meanwhile"),
    ],
)
def test_containers_are_paused_and_let_go(app, wanted, known, did, held, because):
    engine = Engine(app)
    assert carry_out(engine, [app], wanted, known) == held, because
    assert engine.did == did, because


@pytest.mark.parametrize(("policy", "did"), [("no", ["kill id-web"]), ("always", ["kill id-web", "start id-web"])])
def test_a_killed_app_is_started_again_where_its_restart_policy_would(policy, did):
    engine = Engine(WEB)
    kill_app(engine, replace(WEB, restart_policy=policy))
    assert engine.did == did


async def test_who_was_paused_is_remembered_from_one_command_to_the_next(tmp_path, monkeypatch):
    app = replace(WEB, labels={**WEB.labels, "devmesh.workload": "web-v1"})
    sidecar = replace(app, id="id-sidecar", labels={**app.labels, "devmesh.role": "sidecar"})
    engine, files = Engine(app, sidecar), MeshFiles(tmp_path)
    monkeypatch.setattr(holding.Engine, "connect", lambda: engine)
    fault = stored("f1", FaultRequest("web", pause=True))
    async with mesh_registry(tmp_path / "registry") as registry:
        await write_resources(registry, [fault])
        assert await holding.hold(registry, "shop", files) == ["web-v1"]
        await delete_resources(registry, [("fault", fault.key)])
        assert await holding.hold(registry, "shop", files) == []
    assert engine.did == ["pause id-web", "unpause id-web"]
