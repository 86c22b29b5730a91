"""A real Consul as the registry: how to find it, its configuration, its command line."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from devmesh.ca.files import write_private

TOOLS = "~/.cache/devmesh-tools"


@dataclass(frozen=True, slots=True)
class ConsulPorts:
    """All on 127.0.0.1; the gossip and RPC ports are each mesh's own too, so that two meshes run side by side."""

    http: int
    server: int
    serf_lan: int


@dataclass(frozen=True, slots=True)
class ConsulPlace:
    """Where a server keeps its data and on which address it listens: its own on `bind`, HTTP on `client`."""

    data: str
    bind: str = "127.0.0.1"
    client: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ConsulCommand:
    argv: tuple[str, ...]
    config_file: Path


def find_consul(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Look on PATH, then where `.ci/install-consul.sh` puts it."""
    found = shutil.which("consul", path=environment.get("PATH"))
    if found:
        return Path(found)
    installed = Path(environment.get("DEVMESH_TOOLS", TOOLS)).expanduser() / "consul"
    return installed if installed.is_file() and os.access(installed, os.X_OK) else None


def consul_command(binary: Path, directory: Path, ports: ConsulPorts, token: str) -> ConsulCommand:
    """Write the configuration (it holds the token: 0600) and give the command line. Never `-dev`: that one forgets."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    config_file = directory / "consul.json"
    write_private(config_file, orjson.dumps(consul_config(ConsulPlace(str(directory / "data")), ports, token), option=orjson.OPT_INDENT_2))
    return ConsulCommand((str(binary), "agent", "-server", "-bootstrap-expect=1", f"-config-file={config_file}"), config_file)


def consul_config(place: ConsulPlace, ports: ConsulPorts, token: str) -> dict[str, object]:
    """Give the server's configuration; it holds the token."""
    return {
        "node_name": "devmesh",
        "data_dir": place.data,
        "bind_addr": place.bind,
        "client_addr": place.client,
        "log_level": "WARN",
        "ports": {
            "http": ports.http,
            "server": ports.server,
            "serf_lan": ports.serf_lan,
            "dns": -1,
            "grpc": -1,
            "https": -1,
            "serf_wan": -1,
        },
        "performance": {"raft_multiplier": 1},  # a leader in 1.1 s; the default takes 9 s
        "acl": {
            "enabled": True,
            "default_policy": "deny",
            # Named initial_management since 1.11; the old names still work there. The agent's own registration needs a token too.
            "tokens": {"master": token, "agent": token},
        },
        "check_update_interval": "0s",  # or a changed note alone is not seen for five minutes
        "disable_update_check": True,
        "leave_on_terminate": False,
    }
