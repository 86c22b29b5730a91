"""The first mesh, as a remote one on the local runtime sees it (profile `remote`): its servers, its token, its trust.

Istio's remote cluster has no istiod of its own and finds the primary's at `values.global.remotePilotAddress`. Here that is the first mesh's
folder: what lies in its `.devmesh` (0700) is the proof that Istio's remote secret is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from devmesh.config.topology_types import Topology, Workload
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.registry.resources import MESH_CONFIG, delete_remote, read_json, read_topology, write_remote
from devmesh.runtimes.files import MeshFiles

CA_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class View:
    """`ours`: without a gateway, and with the first mesh's addresses of services that both have. `settings` are the mesh's."""

    ours: Topology
    whole: Topology
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Primary:
    folder: Path
    state: dict[str, Any]
    token: str

    @staticmethod
    def of(address: str, own: MeshFiles) -> Primary:
        """The mesh whose folder or compose file that is; a relative one is from our own folder. Raises DevmeshError."""
        place = (own.root.parent / address).resolve()
        folder = place.parent if place.is_file() else place
        files = MeshFiles(folder / ".devmesh")
        if files == own:
            raise DevmeshError(f"{address} is this mesh itself", "give the folder of the mesh whose control plane is to be joined")
        if not folder.is_dir():
            raise DevmeshError(f"values.global.remotePilotAddress: there is no folder {place}", "give the folder of the first mesh")
        if not files.keeper_lives():
            raise DevmeshError(f"no mesh is up in {folder}, whose control plane was to be joined", f"cd {folder} && devmesh up")
        state = files.running_state()
        if state.get("primary"):
            raise DevmeshError(f"the mesh in {folder} is a remote one itself", f"give its own first mesh: {state['primary']}")
        if state.get("runtime", "local") != "local":
            raise DevmeshError(f"the mesh in {folder} runs on Docker", "devmesh up --runtime docker")
        return Primary(folder, state, files.mesh_token())

    @property
    def root(self) -> bytes:
        """The trust bundle, PEM."""
        return (self.folder / ".devmesh" / "root.pem").read_bytes()

    @property
    def registry_url(self) -> str:
        return f"http://127.0.0.1:{self.state['ports']['registry']}"

    async def view(self, topology: Topology) -> View:
        """What the mesh will be with ours in it. Raises DevmeshError."""
        async with Registry(self.registry_url, self.token) as registry:
            whole = await read_topology(registry, without=topology.name)
            settings = await read_json(registry, MESH_CONFIG) or {}
        ours = replace(
            topology,
            services=tuple(
                replace(one, cluster_ip=known.cluster_ip) if (known := whole.service(one.name, one.namespace)) else one
                for one in topology.services
                if any(one.name == workload.service and not workload.gateway for workload in topology.workloads)
            ),
            workloads=tuple(one for one in topology.workloads if not one.gateway),
        )
        refuse_same_names(ours.workloads, whole.workloads, self.folder)
        return View(ours, whole.joined([ours]), settings)

    async def join(self, ours: Topology) -> None:
        async with Registry(self.registry_url, self.token) as registry:
            await write_remote(registry, ours.name, ours.to_json())

    async def leave(self, name: str, workloads: Iterable[str]) -> None:
        """Take our part out of the mesh. Raises DevmeshError when it does not answer."""
        async with Registry(self.registry_url, self.token) as registry:
            await delete_remote(registry, name)
            for workload in workloads:
                await registry.deregister(workload)
                await asyncio.to_thread(self._ask, "DELETE", f"/v1/tokens/{workload}")

    async def tokens(self, workloads: Iterable[Workload]) -> dict[str, str]:
        """One for each workload, from the first mesh's CA. Raises DevmeshError."""
        return await asyncio.to_thread(lambda: {one.name: self._mint(one) for one in workloads})

    def _mint(self, workload: Workload) -> str:
        body = json.dumps({"workload": workload.name, "spiffe_id": workload.spiffe_id})
        answer: dict[str, str] = self._ask("POST", "/v1/tokens", body)
        return answer["token"]

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        context = ssl.create_default_context(cadata=self.root.decode())
        connection = HTTPSConnection("127.0.0.1", self.state["ports"]["ca"], timeout=CA_TIMEOUT, context=context)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise DevmeshError(
                f"the CA of the mesh in {self.folder} does not answer: {error}", f"cd {self.folder} && devmesh status"
            ) from error
        finally:
            connection.close()
        if response.status not in (200, 404):
            raise DevmeshError(f"the CA of the mesh in {self.folder} refuses: {answer}", f"cd {self.folder} && devmesh down && devmesh up")
        return answer


async def leave_primary(state: Mapping[str, Any], own: MeshFiles) -> None:
    """After the end of a remote mesh: take it out of its first one, when that is still there."""
    if state.get("primary"):
        with contextlib.suppress(DevmeshError):
            await Primary.of(state["primary"], own).leave(state["project"], state["workloads"])


def refuse_same_names(ours: Iterable[Workload], theirs: Iterable[Workload], folder: Path) -> None:
    """Raise DevmeshError: a control plane knows a sidecar by its workload's name."""
    both = sorted({one.name for one in ours} & {one.name for one in theirs})
    if both:
        raise DevmeshError(f"{', '.join(both)} runs in the mesh in {folder} too", "rename the compose service in one of them")
