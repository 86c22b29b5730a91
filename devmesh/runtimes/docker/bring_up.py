"""`up`: plan, images, containers, the registry's contents, and the wait until everything is in sync."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from devmesh.ca.files import write_private
from devmesh.config.addon_names import ADDONS
from devmesh.config.topology import GATEWAY, Gateways, Topology, load_topology
from devmesh.errors import DevmeshError
from devmesh.registry.client import Registry
from devmesh.registry.resources import StoredResource, replace_owner, write_mesh
from devmesh.runtimes.claims import PortClaims
from devmesh.runtimes.contents import ControlPlaneView, kept_settings, load_resources, mesh_config
from devmesh.runtimes.docker.addresses import claim_subnet, host_routes
from devmesh.runtimes.docker.build import ensure_devmesh
from devmesh.runtimes.docker.compose import NO_SPACE, SPACE_HINT, Compose, Project
from devmesh.runtimes.docker.dependents import as_json
from devmesh.runtimes.docker.engine import Container, Engine
from devmesh.runtimes.docker.images import FOREIGN_ROLES, ensure, image, image_names
from devmesh.runtimes.docker.layout import Layout, pod_of, sidecar_of
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.docker.prepare import (
    Joining,
    Secrets,
    Surroundings,
    check_given_files,
    check_services,
    lay_out,
    published_ports,
    scrape_targets,
    without_effect,
    write_files,
)
from devmesh.runtimes.docker.primary import DockerPrimary
from devmesh.runtimes.docker.project import as_yaml, render, without_waiting
from devmesh.runtimes.faults import expire_faults
from devmesh.runtimes.files import MeshFiles, last_lines
from devmesh.runtimes.runtime import Json, Tell
from devmesh.runtimes.waiting import LAST_LINES, Lack, Look, NotInTimeError, Wait, wait_timeout

INTERCEPTION = "redirect"
UP_TIMEOUT = 60.0  # seconds until `up` gives up on readiness, counted from when every container was started, unless it is told how many
LEADER_TIMEOUT = 30.0
LOOK_SECONDS = 0.3  # between looks at the containers
ASK_SECONDS = 0.05  # between questions to the control plane, which has better to do while a mesh starts
FOLDER_LABEL = "com.docker.compose.project.working_dir"
REST_RUNS = "The rest of the mesh runs."
START_INTERVAL_SINCE = (25, 0)


class BringUp:
    """One `up`. Every step raises DevmeshError; what was started then is the caller's to remove.

    `ports` holds those of the host, also of what the user's file publishes, as long as the caller likes.
    """

    def __init__(self, compose_file: Path, files: MeshFiles, settings: Json, tell: Tell, ports: PortClaims) -> None:
        self.compose_file, self.files, self.settings, self._tell = compose_file, files, settings, tell
        self.engine = Engine.connect()
        self.compose = Compose.find()
        self.project: Project | None = None
        self._layout: Layout | None = None
        self._rendered: Json = {}
        self._began = time.monotonic()
        self._mesh_id = str(uuid.uuid4())
        self._addons: tuple[str, ...] = tuple(settings.get("addons", ()))
        self._ports = ports
        self._subnets = contextlib.ExitStack()  # claims, until the engine has made the networks

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self._tell({"event": "phase", "name": name})
        yield
        self._tell({"event": "phase_done", "name": name, "seconds": time.monotonic() - started})

    async def run(self) -> Json:
        """The state of the mesh that is up."""
        with self._subnets:
            return await self._run()

    async def _run(self) -> Json:
        profiles, gateways = self.settings.get("compose_profiles", ()), Gateways.of(self.settings)
        address = self.settings.get("remotePilotAddress")
        primary = DockerPrimary.of(address, self.files) if address else None
        with self.phase("plan"):
            config = self.compose.config(self.compose_file, profiles)
            whole = functools.cache(lambda: self.compose.whole(self.compose_file, profiles, config))
            planned = load_topology(self.compose_file, profiles=profiles, merged=whole, gateways=gateways)
            check_services(config, planned)  # before an image is pulled in vain
            check_given_files(config, planned)
            for words in without_effect(config, planned, self.engine.version):
                self._tell({"event": "note", "message": words})
            self._have_project(str(config["name"]))
        for port in published_ports(config["services"]):
            self._ports.take(port)
        with self.phase("images"):
            images = self._images(config)
        with self.phase("project"):
            exposed = self.engine.exposed_ports(image_names(config))
            topology = load_topology(self.compose_file, profiles=profiles, exposed=exposed, merged=whole, gateways=gateways)
            joining = await self._joining(primary, topology) if primary else None
            topology = joining.view.ours if joining else topology
            layout = lay_out(
                config, topology, self.files.root / "docker", images, self._mesh_id, self._surroundings(), joining, self._addons
            )
            resources = [] if joining else load_resources(layout.topology, self._tell)
            tokens = await primary.tokens(layout.topology.workloads) if primary else None
            self.project, self._layout = self._write(layout, tokens), layout
            write_private(self.files.kept, json.dumps({"runtime": "docker", "project": layout.project}).encode(), durable=False)
            self.files.write_state({**(self.files.read_state() or {}), **self.state(containers=False)})
        filling = primary.join(primary.told(layout.topology), scrape_targets(layout)) if primary else self._fill(layout, resources)
        await self._start(layout, self.project, filling)
        with self.phase("in sync"):
            await self._settle(layout)
        self._tell({"event": "done", "seconds": time.monotonic() - self._began})
        return self.state()

    def _have_project(self, project: str) -> None:
        """Nobody else's from here on: until its containers are made the engine knows nothing of a project."""
        alone = self._ports.alone(project_claim(self.engine.identity, project))
        refuse_others(project, self.files.root / "docker", self.engine.containers(project))
        if not alone:
            raise DevmeshError(
                f"project {project!r} is being brought up on this engine, or is up, from another folder",
                f"devmesh down there, or give this one another name: at the top of {self.compose_file.name}",
            )

    def state(self, *, containers: bool = True) -> Json:
        """What `state.json` says of the mesh; {} before it is laid out."""
        if self._layout is None:
            return {}
        found = self.engine.containers(self._layout.project) if containers else ()
        return {**state_of(self._layout, self.compose_file, found), "settings": kept_settings(self.settings)}

    async def _joining(self, primary: DockerPrimary, topology: Topology) -> Joining:
        view = await primary.enter(topology, self.files, self._tell)
        self._mesh_id, self.settings = primary.state["mesh_id"], {**self.settings, "mesh_config": dict(view.settings)}
        return Joining(primary, view)

    def _images(self, config: Mapping[str, Any]) -> dict[str, str]:
        def tell(reference: str, text: str) -> None:
            self._tell({"event": "note", "message": f"{reference}: {text}"})

        roles = [image(role) for role in (() if self.settings.get("remotePilotAddress") else (*FOREIGN_ROLES, *self._addons))]
        self.engine.with_client(lambda client: ensure(client, roles, tell))
        ours = self.engine.with_client(lambda client: ensure_devmesh(client, self.compose.command, tell))
        self._users_images(config, tell)
        return {one.role: one.reference for one in roles} | {"devmesh": ours}

    def _users_images(self, config: Mapping[str, Any], tell: Any) -> None:
        """What the user's services are built from or pulled; compose does both, and says how far it is."""
        services: Mapping[str, Any] = config["services"]
        names = image_names(config)
        missing = [name for name in services if not self.engine.has_image(names[name])]
        for action, chosen in (
            ("build", [name for name in missing if services[name].get("build")]),
            ("pull", [name for name in missing if not services[name].get("build")]),
        ):
            if chosen:
                wanted = ", ".join(f"{names[name]} of {name}" for name in chosen)  # the engine's own words do not name an image
                self.compose.follow(self.compose_file, (action, *chosen), partial(tell, action), f" ({wanted})")

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            existing=self.engine.networks(),
            routes=host_routes(),
            prefer=self._ports.prefer,
            claim=partial(claim_subnet, self._subnets),
            start_interval=self.engine.version >= START_INTERVAL_SINCE,
        )

    def _write(self, layout: Layout, tokens: Mapping[str, str] | None) -> Project:
        config = mesh_config(self.settings, self._mesh_id)
        secrets = Secrets(gives_away=Secrets.may_give_away() and not self.engine.maps_users)
        write_files(layout, self.files.mesh_token(), config, secrets, tokens)
        file = layout.folder / "compose.yaml"
        self._rendered = render(layout)
        write_private(file, as_yaml(self._rendered, self.compose_file.name).encode())
        write_private(starting_file(layout), json.dumps(without_waiting(self._rendered, layout.topology)).encode())
        return Project(layout.project, file)

    async def _start(self, layout: Layout, project: Project, fill: Coroutine[Any, Any, None]) -> None:
        """The mesh first, then the apps. Meanwhile the registry gets what the control plane waits for.

        Between the two the control plane says who is ready, sooner and for less than the engine's health checks would.
        """
        filling = asyncio.create_task(fill, name="fill the registry")
        try:
            with self.phase("mesh"):
                await self._compose_up(project, "--remove-orphans", *own_services(self._rendered))
                await filling
                await self._sidecars(layout)
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
        with self.phase("apps"):
            await self._compose_up(Project(project.name, starting_file(layout)))

    async def _compose_up(self, project: Project, *arguments: str) -> None:
        log = self.files.log("compose")
        process = self.compose.start(project, "up", "--detach", "--quiet-pull", *arguments, log=log)
        try:
            if await asyncio.to_thread(process.wait) != 0:
                raise compose_failed("up", log, could_not_start(self.engine.containers(project.name)))
        finally:
            end(process)

    async def _sidecars(self, layout: Layout) -> None:
        """Until every sidecar runs a configuration."""
        names = [one.name for one in layout.topology.workloads]
        async with self._view(layout) as view:
            await self._until_nothing_lacks(layout, lambda: view.missing(names, ()))

    async def _until_nothing_lacks(self, layout: Layout, look: Look) -> None:
        try:
            await Wait(
                self._tell, wait_timeout(self.settings, UP_TIMEOUT), partial(self._last_lines, layout), again=ASK_SECONDS
            ).until_nothing_lacks(look)
        except NotInTimeError as error:
            raise DevmeshError(f"{error.message}\n{REST_RUNS}", error.hint) from error

    @contextlib.asynccontextmanager
    async def _view(self, layout: Layout) -> AsyncIterator[ControlPlaneView]:
        headers = {"Authorization": f"Bearer {self.files.mesh_token()}"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=5)) as session:
            yield ControlPlaneView(session, f"http://127.0.0.1:{layout.ports.control}")

    async def _fill(self, layout: Layout, resources: list[StoredResource]) -> None:
        async with Registry(f"http://127.0.0.1:{layout.ports.registry}", self.files.mesh_token()) as registry:
            await registry.wait_leader(LEADER_TIMEOUT)
            await write_mesh(registry, self._mesh_id, layout.topology.to_json(), mesh_config(self.settings, self._mesh_id))
            await replace_owner(registry, "mesh", resources)
            await expire_faults(registry)

    async def _settle(self, layout: Layout) -> None:
        """Until every sidecar has acknowledged and every app that runs and has a port gets traffic."""
        names, looked = [one.name for one in layout.topology.workloads], -LOOK_SECONDS
        done: frozenset[str] = frozenset()
        addons: list[Lack] = []

        async def missing() -> list[Lack]:
            nonlocal done, addons, looked
            if time.monotonic() - looked > LOOK_SECONDS:
                (done, addons), looked = await asyncio.to_thread(self._look, layout), time.monotonic()
            wanted = {one.name for one in layout.topology.workloads if one.ports and not one.gateway and one.name not in done}
            return [*addons, *await view.missing(names, wanted)]

        async with self._view(layout) as view:
            await self._until_nothing_lacks(layout, missing)

    def _look(self, layout: Layout) -> tuple[frozenset[str], list[Lack]]:
        """Workloads whose app has done its work, and which addons are not ready. Raises DevmeshError for an app that failed."""
        apps = self.engine.containers(layout.project, f"{ROLE_LABEL}=app")
        for one in apps:
            if has_failed(one):
                lines = "\n".join(self._last_lines_of(one))
                raise DevmeshError(
                    f"{one.service} exits at start (status {one.exit_code}); its last lines:\n{lines}\n{REST_RUNS}",
                    f"devmesh logs {one.service}",
                )
        addons = [one for name in layout.addons for one in self.engine.containers(layout.project, f"{ROLE_LABEL}={name}")]
        return ended(apps), addons_not_ready(addons)

    def _last_lines_of(self, one: Container) -> list[str]:
        return [line for _, line in self.engine.logs(one.id, stdout=True, stderr=True, tail=LAST_LINES, follow=False)]

    def _last_lines(self, layout: Layout, name: str) -> list[str]:
        """Of a service's or a part's container."""
        service = layout.parts.get(name, name)
        return next((self._last_lines_of(one) for one in self.engine.containers(layout.project) if one.service == service), [])


def ended(containers: Collection[Container]) -> frozenset[str]:
    """Workloads of one-shot jobs that are done."""
    return frozenset(one.labels[WORKLOAD_LABEL] for one in containers if one.labels.get(ROLE_LABEL) == "app" and one.state == "exited")


def addons_not_ready(containers: Collection[Container]) -> list[Lack]:
    """What the control plane knows nothing of, so that the engine's health checks have to say it."""
    return [
        Lack(one.service, "the addon is not ready", one.service)
        for one in containers
        if one.labels.get(ROLE_LABEL) in ADDONS and not one.ready
    ]


def own_services(project: Mapping[str, Any]) -> list[str]:
    """The services of a rendered project that are the mesh's own: what the apps wait for."""
    roles = {name: (service.get("labels") or {}).get(ROLE_LABEL) for name, service in project["services"].items()}
    return [name for name, role in roles.items() if role not in (None, "app")]


def starting_file(layout: Layout) -> Path:
    """The project for apps whose sidecars are known to be ready; nobody reads it but compose, for which JSON is YAML."""
    return layout.folder / "starting.json"


def has_failed(one: Container) -> bool:
    """An app that ended, or ends again and again, and not because its work was done."""
    return (
        one.labels.get(ROLE_LABEL) == "app"
        and one.state in ("exited", "dead", "restarting")
        and (one.state != "exited" or one.exit_code != 0)
    )


def project_claim(engine: str, project: str) -> str:
    """Of one engine's; hashed, since an abstract socket's name holds 107 bytes (unix(7))."""
    return f"project-{hashlib.sha256(f'{engine}/{project}'.encode()).hexdigest()[:32]}"


def refuse_others(project: str, folder: Path, found: Collection[Container]) -> None:
    """Compose knows a project by its name alone: bringing up ours would remove what runs under it from another folder, or without the mesh.

    `folder` is where ours is rendered. Raises DevmeshError naming where that came from.
    """
    other = next((where for one in found if (where := one.labels.get(FOLDER_LABEL, "")) and Path(where) != folder), None)
    if other is not None:
        meshed = Path(other).parts[-2:] == folder.parts[-2:]
        origin = Path(other).parent.parent if meshed else other
        end = f"devmesh down in {origin}" if meshed else f"docker compose --project-name {project} down"
        raise DevmeshError(
            f"the engine has a project {project!r} already, from {origin}",
            f"{end}, or give this one another name: at the top of the compose file",
        )


def could_not_start(found: Collection[Container]) -> list[str]:
    """Services whose container the engine tried to start in vain: compose passes on its words, which do not always name one."""
    return [one.service for one in found if one.error and one.state in ("created", "exited")]


def compose_failed(what: str, log: Path, whose: Sequence[str] = ()) -> DevmeshError:
    lines = [line for line in last_lines(log, 40) if "level=warning" not in line]
    wrong = "\n".join([line for line in lines if "rror" in line] or lines[-8:])
    named = f" at {', '.join(whose)}" if whose else ""
    return DevmeshError(f"docker compose {what} failed{named}:\n{wrong}", SPACE_HINT if NO_SPACE in wrong.lower() else f"see {log}")


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()


def state_of(layout: Layout, compose_file: Path, containers: Collection[Container] = ()) -> Json:
    ports = layout.ports
    published = {one.service: dict(one.published) for one in containers}
    return {
        "runtime": "docker",
        "project": layout.project,
        "compose_file": str(compose_file),
        "rendered": str(layout.folder / "compose.yaml"),
        "mesh_id": layout.mesh_id,
        "ports": {"registry": ports.registry, "control": ports.control, "query": ports.query, "otlp": ports.otlp}
        | {name: getattr(ports, name) for name in layout.addons},
        "parts": {} if layout.joins else dict(layout.parts),
        "primary": layout.joins.folder if layout.joins else None,
        "networks": engine_names(layout),
        "gateway_url": gateway_url(layout),
        "gateway_https_port": layout.joins.gateway_https_port if layout.joins else ports.gateway_https,
        "workloads": {
            one.name: {
                "service": one.service,
                "version": one.version,
                "namespace": one.namespace,
                "ip": one.ip,
                "spiffe_id": one.spiffe_id,
                "gateway": one.gateway,
                "interception": INTERCEPTION,
                "url": (gateway_url(layout) if one.name == GATEWAY else None)
                if one.gateway
                else url_of(published.get(pod_of(one.name), {})),
                "pod": one.name if one.gateway else pod_of(one.name),
                "sidecar": one.name if one.gateway else sidecar_of(one.name),
                "depends_on": as_json(one.depends_on),
            }
            for one in layout.topology.workloads
        },
        "processes": [process_json(one) for one in containers],
    }


def gateway_url(layout: Layout) -> str | None:
    if layout.joins:
        return layout.joins.gateway_url
    return f"http://127.0.0.1:{layout.ports.gateway}" if layout.topology.workload(GATEWAY) else None


def engine_names(layout: Layout) -> dict[str, str]:
    """What the engine calls the networks of the user's file (compose-go: `name`, else project and key)."""
    declared = layout.config["networks"]
    return {key: (declared.get(key) or {}).get("name") or f"{layout.project}_{key}" for key in layout.networks}


def process_json(one: Container) -> Json:
    return {
        "name": one.service,
        "kind": one.labels.get(ROLE_LABEL, ""),
        "container": one.name,
        "state": one.state,
        # A sidecar's health check may not have run yet; whether it is in sync says more (mesh.py).
        "ready": one.ready or (one.labels.get(ROLE_LABEL) in ("sidecar", "gateway") and (one.state, one.health) == ("running", "starting")),
        "held": one.state == "paused",
        "restarts": one.restarts,
        "status": one.exit_code if one.state == "exited" else None,
        **({"health": {"status": one.health, "failures": one.failures, "output": one.check_output}} if has_health(one) else {}),
    }


def has_health(one: Container) -> bool:
    """Of an app: the user's own healthcheck, or the image's."""
    return one.labels.get(ROLE_LABEL) == "app" and one.health not in ("", "none")


def url_of(published: Mapping[str, int]) -> str | None:
    """Where a browser on this machine reaches it: its first published TCP port."""
    ports = sorted(port for name, port in published.items() if name.endswith("/tcp"))
    return f"http://127.0.0.1:{ports[0]}" if ports else None
