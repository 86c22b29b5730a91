"""A first mesh on an engine, and what a second project's file becomes when it joins: its pods are on the first one's networks too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.engine import Engine
from devmesh.runtimes.docker.layout import CONTROL_NETWORK, networks_of
from devmesh.runtimes.primary import Primary

Json = dict[str, Any]
ASK = ("python3", "-m", "devmesh.runtimes.docker.ask_ca")


class DockerPrimary(Primary):
    runtime: ClassVar[str] = "docker"
    prometheus_folder: ClassVar[str] = "docker/parts/prometheus"

    @property
    def project(self) -> str:
        return str(self.state["project"])

    @property
    def networks(self) -> dict[str, str]:
        """Its apps' networks: key in its file -> the engine's name."""
        return dict(self.state["networks"])

    @property
    def trust_volume(self) -> str:
        return f"{self.project}_mesh-trust"

    def joined(self, config: Mapping[str, Any], meshed: set[str]) -> Json:
        """The second project's normalised file with its meshed services on the first one's networks. Raises DevmeshError for names that clash."""
        declared: Json = dict(config.get("networks") or {})
        theirs = {self.key(key): {"external": True, "name": name} for key, name in self.networks.items()}
        theirs[CONTROL_NETWORK] = {"external": True, "name": f"{self.project}_{CONTROL_NETWORK}"}
        for key in theirs:
            if key in declared:
                raise DevmeshError(f"networks.{key} has the name of one of the first mesh's", "rename it in the compose file")
        services = {
            name: {**service, "networks": networks_of(service) | {key: {} for key in theirs if key != CONTROL_NETWORK}}
            if name in meshed
            else service
            for name, service in config["services"].items()
        }
        return {**config, "services": services, "networks": declared | theirs}

    def key(self, network: str) -> str:
        """What one of its networks is called in the second project's file."""
        return f"{self.project}-{network}"

    def told(self, topology: Topology) -> Topology:
        """The second project's part as the first mesh is to know it: its networks by the first one's keys, our own by ours."""
        keys = {self.key(key): key for key in self.networks}
        return replace(
            topology,
            workloads=tuple(
                replace(one, addresses={keys.get(key, f"{topology.name}/{key}"): address for key, address in one.addresses.items()})
                for one in topology.workloads
            ),
        )

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        container = f"{self.project}-{self.state['parts']['ca']}-1"
        return json.loads(Engine.connect().exec(container, [*ASK, method, path, *([body] if body else [])]))
