"""What the commands of a mesh's life say."""

import json

import pytest

from devmesh.cli.lifecycle import up
from devmesh.errors import DevmeshError, UsageError
from devmesh.running import RunningMesh
from tests.cli.test_application import devmesh


@pytest.mark.parametrize(("asked", "told"), [(None, None), ("90s", 90.0), ("2m", 120.0), ("0s", 0.0)])
def test_up_tells_the_runtime_how_long_to_wait(tmp_path, monkeypatch, asked, told):
    def start(_mesh, settings, _tell):
        raise DevmeshError(f"told {settings['wait_timeout']}", "none")

    monkeypatch.setattr(RunningMesh, "up", start)
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x}}\n")
    with pytest.raises(DevmeshError, match=f"^told {told}$"):
        up([tmp_path / "compose.yaml"], "local", wait_timeout=asked)


def test_a_time_to_wait_that_is_none_is_refused_before_anything_starts():
    with pytest.raises(UsageError, match="--wait-timeout 'soon' is no duration"):
        up(wait_timeout="soon")


@pytest.mark.parametrize(("file", "says"), [("", True), ("/dev/stdout", False)])
def test_a_mesh_without_access_log_says_how_to_get_one(tmp_path, file, says):
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x}}\n")
    (tmp_path / ".devmesh" / "logs").mkdir(parents=True)
    (tmp_path / ".devmesh" / "logs" / "web.access.log").write_text("before\n")
    state = {"runtime": "local", "workloads": {}, "settings": {"mesh_config": {"access_log_file": file}}}
    (tmp_path / ".devmesh" / "state.json").write_text(json.dumps(state))
    done = devmesh("logs", "--access", cwd=tmp_path)
    assert done.stdout == "web.access | before\n"
    assert ("--set meshConfig.accessLogFile=/dev/stdout" in done.stderr) == says
