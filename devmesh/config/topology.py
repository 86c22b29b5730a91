"""From compose services to the mesh's workloads and services: labels, identities, ports and addresses."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from devmesh.config.compose import ComposeFile, ComposePort, ComposeService, Merged, pairs, read_compose, words
from devmesh.config.compose_names import FurtherNames, Member, further_names
from devmesh.config.dependencies import HEALTHY, Dependency
from devmesh.config.healthcheck import Healthcheck
from devmesh.config.schema import suggest
from devmesh.config.topology_types import PROTOCOL_WORDS, Gateways, PublishedPort, Service, ServicePort, Topology, Workload, port_protocol
from devmesh.errors import DevmeshError

__all__ = [
    "EGRESS_GATEWAY",
    "GATEWAY",
    "GATEWAY_NAMESPACE",
    "Gateways",
    "Healthcheck",
    "PublishedPort",
    "Service",
    "ServicePort",
    "Topology",
    "Workload",
    "check_local",
    "load_topology",
    "port_protocol",
]

GATEWAY = "istio-ingressgateway"
EGRESS_GATEWAY = "istio-egressgateway"
GATEWAY_NAMESPACE = "istio-system"
MOST_WORKLOADS = 253  # gateways included: the last number of an address is the workload's
_SERVICE_KEYS = ("service", "version", "namespace", "serviceAccount", "port", "protocol", "local", "resources", "inject")
TRAFFIC_LABELS = "traffic.sidecar.istio.io/"
INJECT_LABEL = "sidecar.istio.io/inject"
_MESH_KEYS = ("namespace", "resources")
_LOCAL_KEYS = ("command", "working_dir", "environment")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?")


def load_topology(
    path: str | Path,
    mesh_number: int = 0,
    *,
    profiles: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    exposed: Mapping[str, Iterable[int]] | None = None,
    merged: Merged | None = None,
    gateways: Gateways | None = None,
) -> Topology:
    """Read a compose file; DevmeshError lists every mistake with file:line:column.

    `gateways` None: those of Istio's default profile. `exposed` are the ports that images expose, by compose service, for services whose
    file names none; `merged` as `read_compose` has it.
    """
    compose = read_compose(Path(path), os.environ if environ is None else environ, profiles, merged)
    return _Builder(compose, mesh_number, exposed or {}, gateways or Gateways()).build()


def check_local(topology: Topology) -> None:
    """Raise DevmeshError naming each workload that plain processes cannot run: an image and no `x-devmesh.local.command`."""
    if topology.outside:
        raise DevmeshError(
            f"{', '.join(topology.outside)} opted out of the mesh (inject: false), which plain processes cannot",
            "take it out, or use a Docker engine: devmesh up --runtime docker",
        )
    failing = [one for one in topology.workloads if one.local_error]
    if not failing:
        _check_healthchecks(topology)
        return
    message = "\n".join(f"{one.position}: {one.local_error}" for one in failing)
    hint = (
        f"add to {failing[0].compose_service}: x-devmesh: {{local: {{command: ...}}}}, or use a Docker engine: devmesh up --runtime docker"
    )
    raise DevmeshError(message, hint)


def _check_healthchecks(topology: Topology) -> None:
    """Without an image there is no other healthcheck than the compose file's. Raises DevmeshError."""
    without = {one.name: one.compose_service for one in topology.workloads if one.healthcheck is None}
    found = {
        f"{needed.position}: {one.compose_service} waits for {needed}, and {without[needed.name]} has no healthcheck configured": needed
        for one in topology.workloads
        for needed in one.depends_on
        if needed.condition == HEALTHY and needed.required and needed.name in without
    }
    if found:
        first = without[next(iter(found.values())).name]
        raise DevmeshError(
            "\n".join(found), f"give {first} a healthcheck (an image's own is not read without an engine), or wait for service_started"
        )


@dataclass(slots=True)
class _Plan:
    """One compose service on its way to workloads."""

    compose: ComposeService
    service: str
    namespace: str
    version: str
    account: str
    ports: tuple[ServicePort, ...]
    names: tuple[str, ...]
    command: tuple[str, ...] | None = None
    local_error: str | None = None
    working_dir: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _GatewayPlan:
    """A gateway as Istio's charts install it; `ports` are name, port and target port."""

    name: str
    istio: str
    ports: tuple[tuple[str, int, int], ...]

    @property
    def selector(self) -> Mapping[str, str]:
        return {"app": self.name, "istio": self.istio}


INGRESS = _GatewayPlan(GATEWAY, "ingressgateway", (("http2", 80, 8080), ("https", 443, 8443), ("tcp", 31400, 31400)))
EGRESS = _GatewayPlan(EGRESS_GATEWAY, "egressgateway", (("http2", 80, 8080), ("https", 443, 8443)))


class _Builder:
    def __init__(self, compose: ComposeFile, mesh_number: int, exposed: Mapping[str, Iterable[int]], gateways: Gateways) -> None:
        self.exposed = exposed
        self.gateways = [plan for plan, on in ((INGRESS, gateways.ingress), (EGRESS, gateways.egress)) if on]
        self.compose = compose
        self.mesh_number = mesh_number
        self.problems = compose.problems
        self.namespace = str(compose.mesh.get("namespace") or "default")

    def build(self) -> Topology:
        self._keys(self.compose.mesh, "x-devmesh", _MESH_KEYS)
        outside = tuple(one.name for one in self.compose.services if not self._injected(one))
        plans = [self._plan(one) for one in self.compose.services if one.name not in outside]
        self._check_names(plans, outside)
        workloads = [workload for plan in plans for workload in self._workloads(plan, plans)]
        workloads = [self._addressed(workload, number) for number, workload in enumerate(workloads, 1)]
        resources = self._resource_paths()
        names = further_names(
            (Member(plan.compose, (plan.service, plan.namespace), plan.names, bool(plan.ports)) for plan in plans if plan.names),
            self.problems,
        )
        self.problems.raise_if_any()
        workloads += [self._gateway(one, number) for number, one in enumerate(self.gateways, len(workloads) + 1)]
        services = self._services(plans, names)
        directory = str(self.compose.directory.resolve())
        return Topology(self.compose.name, directory, services, tuple(workloads), resources, outside, names.versions)

    def _injected(self, one: ComposeService) -> bool:
        """Opting out, by `x-devmesh` or by the label that Istio's injector reads."""
        given = one.mesh.get("inject", one.labels.get(INJECT_LABEL, True))
        if str(given).lower() not in ("true", "false"):
            self.problems.add(f"{one.path}.x-devmesh.inject", f"inject of {one.name} must be true or false, not {given!r}")
        return str(given).lower() != "false"

    def _keys(self, value: Mapping[str, Any], path: str, known: Iterable[str]) -> None:
        for key in value:
            if key not in known:
                self.problems.add(f"{path}.{key}", f'unknown field "{path}.{key}"', suggest(key, known))

    def _plan(self, one: ComposeService) -> _Plan:
        mesh, path = one.mesh, f"{one.path}.x-devmesh"
        self._keys(mesh, path, _SERVICE_KEYS)
        service = str(mesh.get("service") or one.labels.get("app") or one.name)
        names = tuple(one.name if index == 0 else f"{one.name}-{index + 1}" for index in range(one.replicas))
        namespace, version = str(mesh.get("namespace") or self.namespace), str(mesh.get("version") or one.labels.get("version") or "v1")
        account = str(mesh.get("serviceAccount") or service)
        for field_name, text in (("service", service), ("namespace", namespace), ("serviceAccount", account)):
            if not _NAME.fullmatch(text):
                self.problems.add(f"{path}.{field_name}", f'{field_name} "{text}" of {one.name} must be lower-case letters, digits and "-"')
        if not _LABEL_VALUE.fullmatch(version):
            self.problems.add(f"{path}.version", f'version "{version}" of {one.name} cannot be a label')
        plan = _Plan(one, service, namespace, version, account, self._ports(one), names)
        self._local(plan)
        return plan

    def _local(self, plan: _Plan) -> None:
        one, path = plan.compose, f"{plan.compose.path}.x-devmesh.local"
        local = one.mesh.get("local") or {}
        if not isinstance(local, dict):
            self.problems.add(path, f"{path} must be a mapping with a command")
            local = {}
        self._keys(local, path, _LOCAL_KEYS)
        plan.command = words(local.get("command"), f"{path}.command", self.problems) or (
            one.command if one.build or not one.image else None
        )
        plan.environment = {**one.environment, **pairs(local.get("environment"), f"{path}.environment", self.problems, {})}
        plan.working_dir = str(self._directory(one, local))
        if plan.command is None:
            what = f"image {one.image}" if one.image else "no command"
            plan.local_error = f"service {one.name} ({what}) cannot run as a plain process: it has no x-devmesh.local.command"

    def _directory(self, one: ComposeService, local: Mapping[str, Any]) -> Path:
        """Choose where the process starts; a container's absolute `working_dir` means nothing on this machine."""
        base = self.compose.directory.resolve()
        given = str(local.get("working_dir") or one.working_dir or "")
        if "\0" in given:  # no path(7) has one
            self.problems.add(f"{one.path}.working_dir", f"working_dir of {one.name} is no path: {given!r}")
            return base
        if local.get("working_dir"):
            return (base / given).resolve()
        if one.build and (base / one.build).is_dir():
            base = (base / one.build).resolve()
        inner = one.working_dir
        return (base / inner).resolve() if inner and not Path(inner).is_absolute() else base

    def _ports(self, one: ComposeService) -> tuple[ServicePort, ...]:
        path = f"{one.path}.x-devmesh"
        protocol = str(one.mesh.get("protocol") or "")
        if protocol and protocol.lower() not in PROTOCOL_WORDS:
            self.problems.add(f"{path}.protocol", f'unknown protocol "{protocol}"', suggest(protocol, PROTOCOL_WORDS))
        given = one.mesh.get("port")
        numbers = given if isinstance(given, list) else [] if given is None else [given]
        wanted = [ComposePort(int(number)) for number in numbers if self._is_port(number, f"{path}.port")]
        named = {port.container_port: port for port in one.ports if port.name or port.app_protocol}
        ports = wanted or one.expose or one.ports or tuple(ComposePort(number) for number in self.exposed.get(one.name, ()))
        unique = {port.container_port: named.get(port.container_port, port) for port in ports}
        return tuple(_service_port(port, protocol, alone=len(unique) == 1) for port in unique.values())

    def _is_port(self, number: Any, path: str) -> bool:
        valid = str(number).isdecimal() and 0 < int(number) < 65536
        if not valid:
            self.problems.add(path, f"{path} must be a port number, not {number!r}")
        return valid

    def _check_names(self, plans: list[_Plan], outside: Iterable[str]) -> None:
        taken: dict[str, str] = {GATEWAY: "devmesh's own gateway"}
        known = [*(plan.compose.name for plan in plans), *outside]
        for plan in plans:
            for name in plan.names:
                if name in taken:
                    self.problems.add(
                        plan.compose.path,
                        f'two workloads would be called "{name}": {taken[name]} and {plan.compose.name}',
                        "rename one of them",
                    )
                taken[name] = plan.compose.name
            if not _NAME.fullmatch(plan.compose.name):
                hint = f"rename it {re.sub('[^a-z0-9]+', '-', plan.compose.name.lower()).strip('-')}"
                self.problems.add(
                    plan.compose.path, f'"{plan.compose.name}" cannot name a workload: lower-case letters, digits and "-"', hint
                )
            for needed in plan.compose.depends_on:
                if needed.name not in known and not self._is_left_out(needed):
                    self._unknown(plan.compose.name, needed, known)
        self._check_cycles({plan.compose.name: plan for plan in plans})

    def _unknown(self, name: str, needed: Dependency, known: Iterable[str]) -> None:
        message, hint = f'{name} depends on unknown service "{needed.name}"', suggest(needed.name, known)
        if needed.name in (self.compose.inactive or ()):
            message, hint = f"{message}: it is of a profile that is not active", "devmesh up --compose-profile, or required: false"
        self.problems.add(needed.path, message, hint)

    def _is_left_out(self, needed: Dependency) -> bool:
        """Of a profile that nobody asked for, and not required; a name that nobody has is refused as by compose."""
        inactive = self.compose.inactive
        return needed.implied or (not needed.required and (inactive is None or needed.name in inactive))

    def _check_cycles(self, plans: Mapping[str, _Plan]) -> None:
        done: set[str] = set()

        def visit(name: str, trail: tuple[str, ...]) -> None:
            if name in trail:
                self.problems.add(
                    f"{plans[name].compose.path}.depends_on",
                    f"depends_on runs in a circle: {' -> '.join([*trail[trail.index(name) :], name])}",
                )
            elif name in plans and name not in done:
                for needed in plans[name].compose.depends_on:
                    visit(needed.name, (*trail, name))
            done.add(name)

        for name in plans:
            visit(name, ())

    def _workloads(self, plan: _Plan, plans: list[_Plan]) -> Iterable[Workload]:
        one = plan.compose
        labels = {key: value for key, value in one.labels.items() if _LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)}
        names_of = {other.compose.name: other.names for other in plans}
        for index, name in enumerate(plan.names):
            yield Workload(
                name=name,
                namespace=plan.namespace,
                service=plan.service,
                version=plan.version,
                labels=labels | {"app": plan.service, "version": plan.version},
                service_account=plan.account,
                ip="",
                ports=tuple(port.target_port for port in plan.ports),
                command=plan.command,
                environment=plan.environment,
                working_dir=plan.working_dir,
                image=one.image,
                depends_on=tuple(self._needed(one, names_of)),
                healthcheck=one.healthcheck,
                # A host port belongs to one process: the first replica has it.
                published=tuple(_published(port) for port in one.ports if port.host_port is not None and index == 0),
                compose_service=one.name,
                position=self.compose.sources.position(one.path),
                annotations={key: value for key, value in one.labels.items() if key.startswith(TRAFFIC_LABELS)},
                local_error=plan.local_error,
                networks=tuple(one.networks),
                restart=one.restart,
                container_keys=one.container_keys,
            )

    def _needed(self, one: ComposeService, names_of: Mapping[str, tuple[str, ...]]) -> Iterable[Dependency]:
        """By replica."""
        for needed in one.depends_on:
            position = self.compose.sources.position(needed.path)
            yield from (replace(needed, name=name, position=position) for name in names_of.get(needed.name, ()))

    def _addressed(self, workload: Workload, number: int) -> Workload:
        if number == MOST_WORKLOADS + 1:
            self.problems.add(
                f"services.{workload.compose_service}", f"one mesh holds at most {MOST_WORKLOADS} workloads; this is one too many"
            )
        return replace(workload, ip=f"127.7.{self.mesh_number}.{number}")

    def _services(self, plans: list[_Plan], names: FurtherNames) -> tuple[Service, ...]:
        ports: dict[tuple[str, str], dict[int, ServicePort]] = {}
        for plan in plans:
            if plan.names and plan.ports:
                mine = ports.setdefault((plan.service, plan.namespace), {})
                for port in plan.ports:
                    mine.setdefault(port.port, port)
        services = [
            Service(name, namespace, self._vip(number), {"app": name}, tuple(mine.values()), names.aliases.get((name, namespace), ()))
            for number, ((name, namespace), mine) in enumerate(ports.items(), 1)
        ]
        gateways = [
            Service(one.name, GATEWAY_NAMESPACE, self._vip(number), one.selector, tuple(_gateway_port(*port) for port in one.ports))
            for number, one in enumerate(self.gateways, len(services) + 1)
        ]
        return (*services, *gateways)

    def _vip(self, number: int) -> str:
        return f"240.240.{self.mesh_number}.{number}"

    def _gateway(self, one: "_GatewayPlan", number: int) -> Workload:
        return Workload(
            name=one.name,
            namespace=GATEWAY_NAMESPACE,
            service=one.name,
            version="latest",
            labels={**one.selector, "security.istio.io/tlsMode": "disabled"},  # callers speak to its servers as these say
            service_account=f"{one.name}-service-account",
            ip=f"127.7.{self.mesh_number}.{number}",
            ports=tuple(target for _, _, target in one.ports),
            gateway=True,
        )

    def _resource_paths(self) -> tuple[Path, ...]:
        directory = self.compose.directory
        beside = directory / "mesh"
        paths = [beside] if beside.is_dir() and any(one.suffix in (".yaml", ".yml", ".json") for one in beside.iterdir()) else []
        for path, value in [("x-devmesh", self.compose.mesh), *((f"{one.path}.x-devmesh", one.mesh) for one in self.compose.services)]:
            given = value.get("resources")
            for name in given if isinstance(given, list) else [given] if given else []:
                if not (directory / str(name)).exists():
                    self.problems.add(f"{path}.resources", f"{directory / str(name)} does not exist")
                paths.append(directory / str(name))
        return tuple(dict.fromkeys(paths))


def _gateway_port(name: str, port: int, target_port: int) -> ServicePort:
    return ServicePort(name, port, target_port, "", port_protocol(name, "")[0], "name")


def _published(port: ComposePort) -> PublishedPort:
    return PublishedPort(port.host_ip, port.host_port or 0, port.container_port)


def _service_port(port: ComposePort, protocol: str, *, alone: bool) -> ServicePort:
    """Name a port so that Istio's protocol selection reads from the name what the compose file says."""
    number = port.container_port
    plain = protocol.lower() or "port"
    name = port.name or (plain if alone and protocol else f"{plain}-{number}")
    chosen, source = port_protocol(name, port.app_protocol, number)
    if protocol and not port.name and not port.app_protocol:
        source = "x-devmesh"
    return ServicePort(name, number, number, port.app_protocol, chosen, source)
