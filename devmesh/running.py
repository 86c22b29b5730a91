"""A mesh as far as it is known without its registry: its life, its sidecars and control plane, where its services are.

Apart from `devmesh.mesh` because `up` needs no more than this, and what the rest needs takes longer to import than all of this to run.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from devmesh.config.addon_names import ADDONS
from devmesh.config.file_names import COMPOSE_NAMES
from devmesh.errors import DevmeshError
from devmesh.runtimes.choose import runtime_of
from devmesh.runtimes.fetch import fetch, no_answer
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.runtime import Runtime

Json = dict[str, Any]
Event = Callable[[Json], None]
INBOUND_LISTENER = 15006


def find_compose_file(given: Path | None, directory: Path) -> Path:
    if given is not None:
        if not given.is_file():
            raise DevmeshError(f"{given} does not exist", "devmesh up -f path/to/compose.yaml")
        return given.resolve()
    for name in COMPOSE_NAMES:
        if (directory / name).is_file():
            return (directory / name).resolve()
    raise DevmeshError(f"no compose file in {directory}", "cd to where compose.yaml is, or -f path/to/compose.yaml")


class RunningMesh:
    """The mesh of one compose file, up or not."""

    def __init__(self, compose_file: Path) -> None:
        self.compose_file = compose_file
        self.files = MeshFiles.of(compose_file)

    @classmethod
    def of(cls, given: Path | None = None, directory: Path | None = None) -> Self:
        return cls(find_compose_file(given, directory or Path.cwd()))

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The runtime of the mesh that is up, else of the one that was asked for last."""
        name = (self.files.read_state() or {}).get("runtime", "local")
        return runtime_of(name, self.compose_file, self.files)

    def is_up(self) -> bool:
        return self.runtime.is_up()

    def up(self, settings: Json, tell: Event) -> None:
        """Bring it up and return when it is ready. Raises DevmeshError with what went wrong."""
        if self.is_up():
            raise DevmeshError(f"the mesh in {self.compose_file.parent} is already up", "devmesh status, or devmesh down first")
        runtime_of(settings.get("runtime", "local"), self.compose_file, self.files).up(settings, tell)

    async def down(self, *, volumes: bool = False) -> bool:
        """Stop everything, with `volumes` forget what the mesh kept; False when nothing ran."""
        stopped = await self.runtime.down(volumes=volumes)
        if volumes:
            await asyncio.to_thread(self._forget)
        return stopped

    def _forget(self) -> None:
        """Of meshes that were up before this one, too, whatever their runtime. Raises DevmeshError, with everything still there."""
        kept = self.files.read_kept()
        if kept is not None:
            runtime_of(kept["runtime"], self.compose_file, self.files).forget(kept)
        shutil.rmtree(self.files.root, ignore_errors=True)

    def manifest(self, settings: Json) -> str:
        """The project that the Docker runtime makes of the compose file under these settings of `up`. Raises DevmeshError."""
        from devmesh.runtimes.docker.manifest import generate  # noqa: PLC0415 - the SDK is slow to import and one command needs it

        return generate(self.compose_file, self.files.root / "docker", settings)

    async def act(self, action: str, target: str, *, alone: bool = False) -> list[str]:
        """restart, stop or start the apps of a service or workload, `alone` without whom they depend on; the workloads it did it to."""
        return await self.runtime.act(action, target, alone=alone)

    def state(self) -> Json:
        """What the runtime last wrote. Raises DevmeshError when nothing is up."""
        return self.files.running_state()

    # -- looking ---------------------------------------------------------------------------------------------------

    async def control(self, path: str, wait: float = 5) -> Json:
        url = f"http://127.0.0.1:{self.state()['ports']['control']}{path}"
        return await self.ask(url, wait)

    async def ask(self, url: str, wait: float) -> Json:
        """GET from one of the mesh's own servers. Raises DevmeshError."""
        status, text = await fetch(url, self.files.mesh_token(), wait)
        try:
            answer: Json = json.loads(text)
        except ValueError as error:
            raise no_answer(url, error) from error
        if status >= 400:
            raise DevmeshError(str(answer.get("error", answer)), "devmesh status")
        return answer

    async def certificates(self, workload: str) -> Json:
        """What a sidecar says of its certificates. Raises DevmeshError."""
        answer: Json = json.loads(await self.runtime.ask_sidecar(workload, "admin", "/certs"))
        return answer

    async def certificate(self, workload: str, now: datetime) -> tuple[str | None, str]:
        """When the workload's certificate ends (RFC 3339), None while it has none; and why it has ended without a new one, else ""."""
        try:
            found = [chain for one in (await self.certificates(workload))["certificates"] for chain in one["cert_chain"]]
            expires = str(found[0]["expiration_time"]) if found else None
            if expires is None or now < datetime.fromisoformat(expires):
                return expires, ""
            info = json.loads(await self.runtime.ask_sidecar(workload, "admin", "/server_info"))
        except (DevmeshError, ValueError, KeyError):
            return None, ""
        return expires, str((info.get("ca") or {}).get("error") or "a new one is being asked for")

    async def urls(self, state: Json) -> Json:
        """Services at the gateway where one binds them, else at their own inbound port."""
        services: Json = {}
        bound, strict = await asyncio.gather(self._bound_services(state), self._strict_workloads(state))
        for name, one in state["workloads"].items():
            if one["gateway"] or one["service"] in services:
                continue
            if one["service"] in bound:
                services[one["service"]] = bound[one["service"]]
            elif name in strict:
                services[one["service"]] = "mtls only"
            elif one["url"]:
                services[one["service"]] = one["url"]
        return {"services": services, "mesh": self.mesh_urls()}

    def mesh_urls(self) -> dict[str, str]:
        """Where the mesh's own servers are, for people."""
        ports = self.state()["ports"]
        names = {"consul": "registry", "jaeger": "query", "control": "control"}
        names |= {name: name for name in ADDONS if name in ports}
        return {name: f"http://127.0.0.1:{ports[key]}" for name, key in names.items()}

    async def _bound_services(self, state: Json) -> dict[str, str]:
        """Service -> its URL at the gateway, from the gateway's own compiled routes; plain HTTP before HTTPS.

        A certificate is for a name, so an HTTPS URL has that of its host (`curl --resolve`).
        """
        try:
            config = await self.control("/v1/proxies/istio-ingressgateway/config")
        except DevmeshError:
            return {}
        out: dict[str, str] = {}
        for table in sorted(config["routes"], key=lambda one: str(one["name"]).startswith("https.")):
            for host in table["virtual_hosts"]:
                if host.get("require_tls"):
                    continue
                base = _gateway_base(state, table["name"], host["domains"][0])
                for route in host.get("routes", ()):
                    cluster = route.get("route", {}).get("cluster", "")
                    service = cluster.rpartition("|")[2].partition(".")[0]
                    match = route.get("match", {})
                    out.setdefault(service, base + (match.get("path") or match.get("prefix") or "/"))
        out.pop("", None)
        return out

    async def _strict_workloads(self, state: Json) -> set[str]:
        names = [name for name, one in state["workloads"].items() if not one["gateway"]]
        strict = await asyncio.gather(*map(self._is_strict, names))
        return {name for name, is_strict in zip(names, strict, strict=True) if is_strict}

    async def _is_strict(self, workload: str) -> bool:
        """Whether its sidecar takes mTLS only; False while nobody tells."""
        try:
            config = await self.control(f"/v1/proxies/{workload}/config")
        except DevmeshError:
            return False
        inbound: Json = next((item for item in config["listeners"] if item["name"] == "virtualInbound"), {"filter_chains": []})
        matches = [chain["filter_chain_match"] for chain in inbound["filter_chains"]]
        # A workload without ports has only the chain that refuses connections to the listener itself.
        ports = [match for match in matches if match.get("destination_port", INBOUND_LISTENER) != INBOUND_LISTENER]
        return bool(ports) and not any(match.get("transport_protocol") == "raw_buffer" for match in ports)


def _gateway_base(state: Json, table: str, domain: str) -> str:
    """Scheme, host and port under which a gateway's route table is reached on this machine."""
    if not table.startswith("https."):
        return str(state["gateway_url"])
    host = "127.0.0.1" if "*" in domain else domain
    return f"https://{host}:{state.get('gateway_https_port')}"
