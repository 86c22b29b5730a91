"""A mesh's own servers: registry (ours, or a real Consul), collector, CA, control plane, addons; their ports, and with what each starts."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from devmesh.ca.files import write_private
from devmesh.config.topology_types import Workload
from devmesh.registry.consul import ConsulPorts, consul_command
from devmesh.runtimes.bootstrap import Servers
from devmesh.runtimes.claims import claim_port, claim_usual_port
from devmesh.runtimes.contents import mint_tokens
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.addons import Addon, all_answer, command, environment, plan_addons, write_settings
from devmesh.runtimes.local.children import Children
from devmesh.runtimes.local.plan import WorkloadPlan, bind_preferring, port_of
from devmesh.runtimes.local.ports import REGISTRY_PORT
from devmesh.sidecar.bootstrap import CONTROL_PLANE


class OwnServers:
    """`ports` says where each is, by face: a remote mesh's are those of its first one, and none of them is started here."""

    def __init__(self, files: MeshFiles, children: Children) -> None:
        self.ports: dict[str, int] = {}
        self._files, self._children = files, children
        self._socks: dict[str, list[socket.socket]] = {}
        self._claims: list[socket.socket] = []
        self._addons: dict[str, Addon] = {}

    def bind(self, addons: dict[str, Path]) -> None:
        """Take a port for each, its usual one if that is free; `addons` are the binaries to run."""
        self._bind_own()
        self._plan_addons(addons)

    def _bind_own(self) -> None:
        for name, ports in (("registry", (REGISTRY_PORT,)), ("ca", (15011,)), ("control", (15012, 15014)), ("collector", (4318, 16686))):
            self._socks[name] = [bind_preferring("127.0.0.1", port) for port in ports]
        for key, name, index in (
            ("registry", "registry", 0),
            ("ca", "ca", 0),
            ("xds", "control", 0),
            ("control", "control", 1),
            ("otlp", "collector", 0),
            ("query", "collector", 1),
        ):
            self.ports[key] = port_of(self._socks[name][index])

    def _plan_addons(self, binaries: dict[str, Path]) -> None:
        self._addons = plan_addons(binaries, self._files.root)
        self._claims += [one.held for one in self._addons.values()]
        self.ports |= {name: one.port for name, one in self._addons.items()}

    # -- registry --------------------------------------------------------------------------------------------------

    @property
    def registry_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['registry']}"

    async def start_registry(self, token: str) -> None:
        """Ours, or a Consul where there is one."""
        binary = shutil.which("consul")
        if binary is not None:
            await self._start_consul(Path(binary), token)
            return
        arguments = {"directory": str(self._files.root / "registry"), "token_file": str(self._files.token)}
        self._children.fork("registry", "registry", arguments, self._socks["registry"])

    async def _start_consul(self, binary: Path, token: str) -> None:
        for sock in self._socks["registry"]:
            sock.close()  # Consul binds by itself
        usual = self.ports["registry"] == REGISTRY_PORT
        claimed = [claim_usual_port(REGISTRY_PORT) if usual else claim_port(), claim_port(), claim_port()]
        self._claims += [held for _, held in claimed]
        self.ports["registry"], server, serf = (port for port, _ in claimed)
        ports = ConsulPorts(self.ports["registry"], server, serf)
        argv = consul_command(binary, self._files.root / "consul", ports, token).argv
        await self._children.spawn_foreign("registry", "consul", {"argv": list(argv), "environment": os.environ.copy()})

    # -- collector, CA, control plane ------------------------------------------------------------------------------

    def start_collector(self) -> None:
        self._children.fork("collector", "collector", {"token_file": str(self._files.token)}, self._socks["collector"])

    def start_ca(self, otlp_url: str) -> None:
        directory = self._files.root / "ca"
        arguments = {"directory": str(directory), "token_file": str(self._files.token), "otlp_url": otlp_url}
        self._children.fork("ca", "ca", arguments, self._socks["ca"])

    async def ready(self) -> None:
        """Wait for registry and CA, whose root then lies where sidecars look for it. A Consul tells nothing and has to be asked."""
        await asyncio.gather(self._children.ready("registry"), self._children.ready("ca"))
        (self._files.root / "root.pem").write_bytes((self._files.root / "ca" / "root.pem").read_bytes())

    def mint_tokens(self, workloads: Iterable[Workload]) -> dict[str, Path]:
        """Put them into the CA's store, before it starts; where each is kept, by workload."""
        return self.keep_tokens(mint_tokens(self._files.root / "ca" / "tokens.json", workloads))

    def keep_tokens(self, tokens: Mapping[str, str]) -> dict[str, Path]:
        """Where each is kept."""
        out = {}
        for name, token in tokens.items():
            out[name] = self._files.workload(name) / "token"
            write_private(out[name], token.encode(), durable=False)
        return out

    def ca_address(self, token: Path) -> dict[str, str]:
        """How whoever has this token reaches the CA."""
        return {"url": f"https://127.0.0.1:{self.ports['ca']}", "root_file": str(self._files.root / "root.pem"), "token_file": str(token)}

    def start_control(self, token: Path, otlp_url: str) -> None:
        """`token` is what the CA knows it by."""
        arguments = {
            "registry_url": self.registry_url,
            "token_file": str(self._files.token),
            "ca": self.ca_address(token),
            "spiffe_id": str(CONTROL_PLANE),
            "otlp_url": otlp_url,
        }
        self._children.fork("control", "control", arguments, self._socks["control"])

    def seen_by_sidecars(self, mesh_id: str, config: Mapping[str, Any]) -> Servers:
        """`config` is the mesh's (runtimes/contents.py, mesh_config)."""
        xds, otlp = f"https://127.0.0.1:{self.ports['xds']}", f"http://127.0.0.1:{self.ports['otlp']}"
        return Servers(xds, otlp, mesh_id, config.get("access_log_encoding", "TEXT"), config.get("secret_ttl"))

    # -- addons ----------------------------------------------------------------------------------------------------

    async def start_addons(self, plans: Mapping[str, WorkloadPlan]) -> None:
        write_settings(self._addons, plans, self.ports["control"])
        for name, one in self._addons.items():
            await self._children.spawn_foreign(name, "addon", {"argv": command(one), "environment": environment(one, os.environ)})

    async def addons_answer(self) -> None:
        await all_answer(self._addons, self._is_lost, self._files.log)

    def _is_lost(self, addon: str) -> bool:
        return self._children.processes[addon].restarts > 1 or self._children.is_late
