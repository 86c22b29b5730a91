"""How a real Consul is found and started; that it then works is tests/conformance/test_registry.py."""

import json

from devmesh.registry.consul import ConsulPorts, consul_command, find_consul


def test_the_configuration_is_a_server_with_a_directory_and_default_deny(tmp_path):
    command = consul_command(tmp_path / "consul", tmp_path / "registry", ConsulPorts(http=8500, server=8300, serf_lan=8301), "secret")
    config = json.loads(command.config_file.read_text())
    assert config["acl"]["default_policy"] == "deny"
    assert config["acl"]["tokens"]["master"] == "secret"
    assert config["performance"]["raft_multiplier"] == 1
    assert config["data_dir"].startswith(str(tmp_path))
    assert "-server" in command.argv
    assert "-dev" not in command.argv
    assert "secret" not in " ".join(command.argv)
    assert command.config_file.stat().st_mode & 0o777 == 0o600


def test_path_comes_before_the_tools_directory(tmp_path):
    assert find_consul({"PATH": str(tmp_path), "DEVMESH_TOOLS": str(tmp_path / "tools")}) is None
    for directory in (tmp_path / "tools", tmp_path):
        directory.mkdir(exist_ok=True)
        (directory / "consul").touch(mode=0o755)
        assert find_consul({"PATH": str(tmp_path), "DEVMESH_TOOLS": str(tmp_path / "tools")}) == directory / "consul"
