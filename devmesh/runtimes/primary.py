"""The first mesh, as a remote one sees it (profile `remote`): its registry, its token, its CA.

Istio's remote cluster has no istiod of its own and finds the primary's at `values.global.remotePilotAddress`. Here that is the first mesh's
folder: what lies in its `.devmesh` (0700) is the proof that Istio's remote secret is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar, Self

from devmesh.ca.files import write_private
from devmesh.config.topology_types import Service, Topology, Workload
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.registry.resources import MESH_CONFIG, delete_remote, read_json, read_topology, write_remote
from devmesh.runtimes.addons import PROMETHEUS, Target, forget_remote, scrape_remote
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.runtime import Tell


@dataclass(frozen=True, slots=True)
class View:
    """`ours`: without a gateway, and with the first mesh's addresses of services that both have. `settings` are the mesh's."""

    ours: Topology
    whole: Topology
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Primary:
    runtime: ClassVar[str]
    prometheus_folder: ClassVar[str]
    folder: Path
    state: dict[str, Any]
    token: str

    @classmethod
    def of(cls, address: str, own: MeshFiles) -> Self:
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
        if (runtime := state.get("runtime", "local")) != cls.runtime:
            raise DevmeshError(f"the mesh in {folder} is on the {runtime} runtime", f"devmesh up --runtime {runtime}")
        return cls(folder, state, files.mesh_token())

    @property
    def registry_url(self) -> str:
        return f"http://127.0.0.1:{self.state['ports']['registry']}"

    async def enter(self, topology: Topology, own: MeshFiles, tell: Tell) -> View:
        """`view`, with the first mesh's token kept as ours. Raises DevmeshError.

        What lies beside our compose file configures nothing there, as in Istio's config cluster, and is told.
        """
        view = await self.view(topology)
        for path in topology.resource_paths:
            words = f"{path} is not read: the configuration is the first mesh's (devmesh apply -f {path.name} adds to it)"
            tell({"event": "note", "message": words})
        write_private(own.token, self.token.encode())
        return view

    async def view(self, topology: Topology) -> View:
        """What the mesh will be with ours in it. Raises DevmeshError."""
        async with Registry(self.registry_url, self.token) as registry:
            whole = await read_topology(registry, without=topology.name)
            settings = await read_json(registry, MESH_CONFIG) or {}
        workloads = tuple(one for one in topology.workloads if not one.gateway)
        names = {(one.service, one.namespace) for one in workloads}
        services = with_addresses_of(whole, [one for one in topology.services if (one.name, one.namespace) in names])
        ours = replace(topology, services=services, workloads=workloads)
        refuse_same_names(ours.workloads, whole.workloads, self.folder)
        return View(ours, whole.joined([ours]), settings)

    async def join(self, ours: Topology, sidecars: Iterable[Target]) -> None:
        """`sidecars` are where the first mesh's Prometheus, if it has one, finds ours."""
        async with Registry(self.registry_url, self.token) as registry:
            await write_remote(registry, ours.name, ours.to_json())
        if (folder := self._prometheus()) is not None:
            scrape_remote(folder, ours.name, sidecars)

    async def leave(self, name: str, workloads: Iterable[str]) -> None:
        """Take our part out of the mesh. Raises DevmeshError when it does not answer."""
        if (folder := self._prometheus()) is not None:
            forget_remote(folder, name)
        async with Registry(self.registry_url, self.token) as registry:
            await delete_remote(registry, name)
            for workload in workloads:
                await registry.deregister(workload)
                await asyncio.to_thread(self._ask, "DELETE", f"/v1/tokens/{workload}")

    def _prometheus(self) -> Path | None:
        """Where its Prometheus' settings are."""
        return self.folder / ".devmesh" / self.prometheus_folder if PROMETHEUS in self.state["ports"] else None

    async def tokens(self, workloads: Iterable[Workload]) -> dict[str, str]:
        """One for each workload, from the first mesh's CA. Raises DevmeshError."""
        return await asyncio.to_thread(lambda: {one.name: self._mint(one) for one in workloads})

    def _mint(self, workload: Workload) -> str:
        body = json.dumps({"workload": workload.name, "spiffe_id": workload.spiffe_id})
        answer: dict[str, str] = self._ask("POST", "/v1/tokens", body)
        return answer["token"]

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        """A request to the CA. Raises DevmeshError."""
        raise NotImplementedError


async def leave_primary(kind: type[Primary], state: Mapping[str, Any], own: MeshFiles) -> None:
    """After the end of a remote mesh: take it out of its first one, when that is still there."""
    if state.get("primary"):
        with contextlib.suppress(DevmeshError):
            await kind.of(state["primary"], own).leave(state["project"], state["workloads"])


def with_addresses_of(whole: Topology, services: Iterable[Service]) -> tuple[Service, ...]:
    """Services that the mesh has already keep its address of them; the others get one that no service there has."""
    taken = {IPv4Address(one.cluster_ip) for one in whole.services if one.cluster_ip}
    out = []
    for one in services:
        known = whole.service(one.name, one.namespace)
        address = IPv4Address(known.cluster_ip if known else one.cluster_ip)
        while known is None and address in taken:
            address += 1
        taken.add(address)
        out.append(replace(one, cluster_ip=str(address)))
    return tuple(out)


def refuse_same_names(ours: Iterable[Workload], theirs: Iterable[Workload], folder: Path) -> None:
    """Raise DevmeshError: a control plane knows a sidecar by its workload's name."""
    both = sorted({one.name for one in ours} & {one.name for one in theirs})
    if both:
        raise DevmeshError(f"{', '.join(both)} runs in the mesh in {folder} too", "rename the compose service in one of them")
