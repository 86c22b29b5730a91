"""What `down --volumes` forgets."""

import json

import pytest

from devmesh.errors import DevmeshError
from devmesh.running import RunningMesh
from devmesh.runtimes.docker.engine import Engine


@pytest.fixture
def mesh(tmp_path):
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    made = RunningMesh(tmp_path / "compose.yaml")
    made.files.make()
    return made


def keep(mesh):
    mesh.files.kept.write_text(json.dumps({"runtime": "docker", "project": "shop"}))


class ScriptedEngine:
    def __init__(self):
        self.removed = []

    def remove_volumes(self, project):
        self.removed.append(project)


@pytest.mark.parametrize("state", [None, {"runtime": "local"}], ids=["after a down", "of the other runtime"])
async def test_what_a_mesh_that_is_down_keeps_on_an_engine_goes_with_its_folder(mesh, monkeypatch, state):
    engine = ScriptedEngine()
    monkeypatch.setattr(Engine, "connect", lambda: engine)
    keep(mesh)
    if state is not None:
        mesh.files.write_state(state)
    await mesh.down()
    assert engine.removed == []
    await mesh.down(volumes=True)
    assert engine.removed == ["shop"]
    assert not mesh.files.root.exists()


async def test_where_the_engine_does_not_answer_nothing_is_forgotten(mesh, monkeypatch):
    def refuse():
        raise DevmeshError("no engine", "start it")

    monkeypatch.setattr(Engine, "connect", refuse)
    keep(mesh)
    with pytest.raises(DevmeshError, match="no engine"):
        await mesh.down(volumes=True)
    assert mesh.files.kept.exists()


async def test_without_an_engine_nobody_asks_one(mesh, monkeypatch):
    monkeypatch.delattr(Engine, "connect")
    await mesh.down(volumes=True)
    assert not mesh.files.root.exists()
