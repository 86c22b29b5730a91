"""What the commands of a mesh's life say."""

import json

import pytest

from tests.cli.test_application import devmesh


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
