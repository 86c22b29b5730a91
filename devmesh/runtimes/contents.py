"""What a mesh is brought up with, whichever runtime it is: its resources, its settings, and when it is in sync."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from devmesh.ca.identity import SpiffeId
from devmesh.ca.tokens import TokenStore
from devmesh.config.analysis import analyze, merge
from devmesh.config.loader import load_paths
from devmesh.config.operator.settings import choose
from devmesh.config.topology_types import Topology, Workload
from devmesh.errors import DevmeshError
from devmesh.registry.resources import StoredResource
from devmesh.runtimes.runtime import Json, Tell
from devmesh.runtimes.waiting import Lack
from devmesh.sidecar.bootstrap import CONTROL_PLANE

CONTROL_PLANE_WORKLOAD = "controlplane"
KEPT_SETTINGS = ("profile", "ingressGateway", "egressGateway", "addons", "remotePilotAddress", "mesh_config", "operator")


def load_resources(topology: Topology, tell: Tell) -> list[StoredResource]:
    """The mesh's own files, judged as `apply` judges them. Raises DevmeshError with every error; warnings are told."""
    loaded = load_paths(topology.resource_paths, owner="mesh")
    found = merge([loaded.diagnostics, analyze(loaded.resources, topology)])
    errors = [one for one in found if one.severity == "error"]
    for diagnostic in found:
        if diagnostic not in errors:
            tell({"event": "diagnostic", **diagnostic.to_json()})
    if errors:
        raise DevmeshError(
            f"{len(errors)} error{'s' * (len(errors) > 1)} in the mesh's resources:\n" + "\n".join(map(str, errors)),
            "mend them, then devmesh up",
        )
    return [StoredResource.of(resource, "mesh") for resource in loaded.resources]


def mint_tokens(file: Path, workloads: Iterable[Workload]) -> dict[str, str]:
    """A token for each workload and the control plane, by name, minted straight into the CA's store before it starts; it keeps their hashes."""
    store = TokenStore(file)
    identities = {one.name: one.spiffe_id for one in workloads} | {CONTROL_PLANE_WORKLOAD: str(CONTROL_PLANE)}
    return store.mint_all({name: SpiffeId.parse(spiffe_id) for name, spiffe_id in identities.items()}, durable=False)


def mesh_config(settings: Mapping[str, Any], mesh_id: str) -> Json:
    """MeshConfig as the control plane reads it: what `up` was told, else what its profile says."""
    chosen = settings.get("mesh_config")
    return {**(choose(settings.get("profile")).mesh_config() if chosen is None else chosen), "mesh_id": mesh_id}


def kept_settings(settings: Mapping[str, Any]) -> Json:
    """What `state.json` says of how the mesh was brought up, for `status` and for whoever looks later."""
    return {key: settings[key] for key in KEPT_SETTINGS if key in settings}


class ControlPlaneView:
    """What the control plane's admin API says, asked again and again."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def missing(self, workloads: Iterable[str], wanted: Collection[str]) -> list[Lack]:
        """What is not so yet: every sidecar has acknowledged what it was sent, every wanted workload gets traffic.

        In this order: who has acknowledged everything afterwards has these endpoints.
        """
        endpoints = set((await self._get("/v1/status")).get("endpoints") or ())
        proxies = {one["workload"]: one for one in (await self._get("/v1/proxies")).get("proxies", ())}
        found = []
        for name in workloads:
            proxy = proxies.get(name)
            if proxy is None or not proxy["connected"]:
                found.append(Lack(name, "its sidecar has not connected to the control plane", f"{name}-sidecar"))
            elif not proxy["synced"]:
                what = f"its sidecar has not acknowledged its configuration {proxy.get('error') or ''}".rstrip()
                found.append(Lack(name, what, f"{name}-sidecar"))
            elif name in wanted and name not in endpoints:
                found.append(Lack(name, f"its app takes no connections: {proxy.get('detail') or 'no answer yet'}", name))
        return found

    async def _get(self, path: str) -> Json:
        try:
            async with self._session.get(f"{self._url}{path}") as response:
                answer: Json = await response.json() if response.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError):
            return {}
        return answer
