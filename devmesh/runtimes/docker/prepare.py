"""From the user's compose file to a layout, and the files that the containers are given."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any

from devmesh.ca.files import private_directory, write_private
from devmesh.config.addon_names import ADDONS
from devmesh.config.topology import Topology, Workload
from devmesh.errors import DevmeshError
from devmesh.registry.consul import ConsulPlace, ConsulPorts, consul_config
from devmesh.runtimes.addons import GRAFANA, PROMETHEUS, Target, control_plane, write_grafana, write_prometheus
from devmesh.runtimes.bootstrap import Servers, sidecar_bootstrap
from devmesh.runtimes.contents import CONTROL_PLANE_WORKLOAD, mint_tokens
from devmesh.runtimes.docker.addresses import Addresses, Claim
from devmesh.runtimes.docker.engine import ExistingNetwork
from devmesh.runtimes.docker.layout import (
    ADDON_VOLUMES,
    COLLECTOR,
    CONTROL_NETWORK,
    HOST_NETWORK,
    OWN_NETWORKS,
    OWN_VOLUMES,
    REGISTRY_NETWORK,
    HostPorts,
    Joins,
    Layout,
    networks_of,
    own_names,
    plan_subnets,
    pod_of,
    sidecar_of,
    with_addresses,
)
from devmesh.runtimes.docker.parts import address
from devmesh.runtimes.docker.pod import SIDECAR_UID
from devmesh.runtimes.docker.pods import FOLDER, addresses_by_name, refuse, refused_names
from devmesh.runtimes.docker.primary import DockerPrimary
from devmesh.runtimes.primary import View
from devmesh.sidecar.bootstrap import CONTROL_PLANE

ROOT_FILE = "/var/lib/devmesh/trust/root.pem"
CERTIFICATES, FILES = "certs", f"{FOLDER}/files"
MAC_BESIDE_ADDRESS_SINCE = (25, 0)  # of the engine; before that compose drops a container's where a network gives a fixed address
CA_DIRECTORY = "/var/lib/devmesh/ca"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the machine and its engine have already."""

    existing: Sequence[ExistingNetwork] = ()
    routes: Sequence[IPv4Network] = ()
    prefer: Callable[[int], int] = lambda port: port
    claim: Claim = lambda _: True
    start_interval: bool = True


@dataclass(frozen=True, slots=True)
class Joining:
    """A project that joins a first mesh, and the whole mesh as it will be."""

    primary: DockerPrimary
    view: View

    def ports(self) -> HostPorts:
        found = self.primary.state["ports"]
        own = {name: found[name] for name in ("registry", "query", "otlp", "control", *self.addons())}
        return HostPorts(**own)

    def addons(self) -> tuple[str, ...]:
        """The first mesh's, which are ours to look at."""
        return tuple(name for name in ADDONS if name in self.primary.state["ports"])

    def joins(self) -> Joins:
        state = self.primary.state
        folder, whole = str(self.primary.folder), self.view.whole
        return Joins(self.primary.project, folder, self.primary.trust_volume, whole, state["gateway_url"], state.get("gateway_https_port"))


def lay_out(
    config: Mapping[str, Any],
    topology: Topology,
    folder: Path,
    images: Mapping[str, str],
    mesh_id: str,
    surroundings: Surroundings,
    joining: Joining | None = None,
    addons: Sequence[str] = (),
) -> Layout:
    """Raises DevmeshError for networks that cannot be used."""
    check_services(config, topology)
    if joining:
        config = joining.primary.joined(config, {one.compose_service for one in topology.workloads})
    project = str(config["name"])
    services: Mapping[str, Any] = config["services"]
    meshed = {one.compose_service for one in topology.workloads}
    names = [*services, *(name(one.name) for one in topology.workloads for name in (str, pod_of, sidecar_of))]
    used = [name for service in services if service in meshed for name in networks_of(services[service])]
    declared = config.get("networks") or {}
    networks = tuple(dict.fromkeys([*used, *declared])) or ("default",)
    with_default = {**dict(config), "networks": {name: declared.get(name) for name in networks}}
    subnets = plan_subnets(
        with_default,
        project,
        surroundings.existing,
        surroundings.routes,
        len(topology.workloads),
        () if joining else OWN_NETWORKS,
        surroundings.claim,
    )
    addresses = Addresses(subnets, given(services, topology))
    users = set(published_ports(services))
    placed = with_addresses(topology, config, addresses, networks)
    return Layout(
        project=project,
        folder=folder,
        config=with_default,
        topology=placed,
        addresses=addresses,
        networks=networks,
        parts=joining.primary.state["parts"] if joining else own_names(names, addons),
        ports=joining.ports() if joining else HostPorts.choose(lambda port: surroundings.prefer(0 if port in users else port)),
        images=images,
        mesh_id=mesh_id,
        start_interval=surroundings.start_interval,
        loopback={
            one.name: surroundings.prefer(0)
            for one in placed.workloads
            if one.ports and not one.gateway and not _publishes_tcp(services[one.compose_service])
        },
        addons=joining.addons() if joining else tuple(addons),
        joins=joining.joins() if joining else None,
    )


def _publishes_tcp(service: Mapping[str, Any]) -> bool:
    return any(str(port.get("protocol") or "tcp") == "tcp" for port in service.get("ports") or ())


def check_services(config: Mapping[str, Any], topology: Topology) -> None:
    """Raise DevmeshError for what no pod can be made of, and for a name that the mesh gives to something of its own."""
    services = config["services"]
    places = _places(topology)
    published_ports(services, places)
    for one in topology.workloads:
        place = places.get(one.compose_service, "")
        refuse(one.compose_service, services.get(one.compose_service, {}), place)
        for made, what in ((pod_of(one.name), "pod"), (sidecar_of(one.name), "sidecar")):
            if made in services:
                raise DevmeshError(
                    f'{place}service "{made}" has the name of the {what} of {one.name}', f"rename {made}, or {one.compose_service}"
                )
    for key, own in (("networks", OWN_NETWORKS), ("volumes", (*OWN_VOLUMES, *ADDON_VOLUMES.values()))):
        for name in own:
            if name in (config.get(key) or {}):
                raise DevmeshError(f"{key}.{name} has the name of one of the mesh's own", "rename it in the compose file")


def _places(topology: Topology) -> dict[str, str]:
    """Where each compose service stands, as a message begins."""
    return {one.compose_service: f"{one.position}: " for one in topology.workloads if one.position}


def check_given_files(config: Mapping[str, Any], topology: Topology) -> None:
    """Raise DevmeshError for secrets and configs whose file is not there: the engine would find out when most of the mesh is up."""
    places = _places(topology)
    for kind in ("secrets", "configs"):
        for name, service in config["services"].items():
            for one in service.get(kind) or ():
                source = one["source"] if isinstance(one, Mapping) else one
                file = ((config.get(kind) or {}).get(source) or {}).get("file")
                if file and not Path(file).exists():
                    raise DevmeshError(f"{places.get(name, '')}{kind[:-1]} {source} of {name}: {file} does not exist", f"write {file}")


def without_effect(config: Mapping[str, Any], topology: Topology, engine: tuple[int, ...]) -> list[str]:
    """What a file says and no container will have, to be told."""
    if engine >= MAC_BESIDE_ADDRESS_SINCE:
        return []
    given = [name for name in _places(topology) if config["services"].get(name, {}).get("mac_address")]
    return [
        f"{_places(topology)[name]}mac_address of {name} has no effect on an engine before 25, where a fixed address, as a pod's, excludes it"
        for name in given
    ]


# What a `host_ip` stands for: (IP version, address), the address empty for all; without one the engine binds both versions.
ALL_ADDRESSES = {"": ((4, ""), (6, "")), "0.0.0.0": ((4, ""),), "::": ((6, ""),)}
Place = tuple[int, str]


def published_ports(services: Mapping[str, Any], places: Mapping[str, str] = MappingProxyType({})) -> dict[int, str]:
    """Host port -> the service whose file publishes it. Raises DevmeshError for one that is wanted twice on an address."""
    found: dict[tuple[int, str], dict[Place, str]] = {}
    for name, service in services.items():
        for port in service.get("ports") or ():
            number = str(port.get("published") or "0")
            if number.isdecimal() and int(number):
                taken = found.setdefault((int(number), str(port.get("protocol") or "tcp")), {})
                _take(taken, str(port.get("host_ip") or "").strip("[]"), number, name, places.get(name, ""))
    return {number: next(iter(names.values())) for (number, _), names in found.items()}


def _take(taken: dict[Place, str], address: str, number: str, name: str, place: str) -> None:
    """`taken`: whose the port is, by place; the new places are added."""
    for version, one in ALL_ADDRESSES.get(address, ((6 if ":" in address else 4, address),)):
        others = [whose for (other, where), whose in taken.items() if other == version and (where == one or "" in (where, one))]
        if others and (others[0] != name or (version, one) in taken):
            twice = f"twice by {name}" if others[0] == name else f"by {others[0]} and by {name}"
            raise DevmeshError(f"{place}port {number} is published {twice}", "publish another port for one of them")
        taken[version, one] = name


def given(services: Mapping[str, Any], topology: Topology) -> dict[tuple[str, str], str]:
    """Addresses that the user's file fixes; they are the first replica's."""
    out = {}
    for workload in topology.workloads:
        service = services.get(workload.compose_service)
        if service is None or workload.name != workload.compose_service:
            continue
        for network, settings in networks_of(service).items():
            if settings.get("ipv4_address"):
                out[network, pod_of(workload.name)] = str(settings["ipv4_address"])
    return out


@dataclass(frozen=True, slots=True)
class Secrets:
    """Writes what only one container may read: given to the container's own user, 0600.

    Where uids differ inside and outside, or we may not give files away, it is readable to all inside a folder that is closed to all
    (`.devmesh` is 0700).
    """

    gives_away: bool

    @staticmethod
    def may_give_away() -> bool:
        return os.geteuid() == 0

    def write(self, path: Path, data: bytes, uid: int = SIDECAR_UID) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        write_private(path, data, durable=False)
        if self.gives_away:
            os.chown(path, uid, uid)
        else:
            path.chmod(0o644)

    def json(self, path: Path, value: Any, uid: int = SIDECAR_UID) -> None:
        self.write(path, json.dumps(value, indent=1).encode(), uid)


def write_files(layout: Layout, token: str, config: Mapping[str, Any], secrets: Secrets, tokens: Mapping[str, str] | None = None) -> None:
    """Everything below `layout.folder` except the project itself. `config` is the mesh's own settings, `tokens` by workload, where the first mesh's CA has given them."""
    private_directory(layout.folder)
    if tokens is None:
        _consul_files(layout, token, secrets)
        tokens = _ca_files(layout, token, secrets)
        _control_files(layout, token, tokens[CONTROL_PLANE_WORKLOAD], secrets)
    servers = servers_of(layout, config)
    for workload in layout.topology.workloads:
        folder = layout.workload_folder(workload.name)
        secrets.write(folder / "token", tokens[workload.name].encode())
        secrets.json(folder / "bootstrap.json", bootstrap_of(layout, workload, servers))
        if workload.gateway:
            _give_certificates(layout, folder / Path(FILES).name, secrets)
    _addon_files(layout)


def _give_certificates(layout: Layout, folder: Path, secrets: Secrets) -> None:
    """The user's `certs/` beside the compose file, as it is now: their own files need not be readable to the container's user."""
    shutil.rmtree(folder, ignore_errors=True)
    source = Path(layout.topology.directory) / CERTIFICATES
    given = layout.topology.directory and source.is_dir()
    for file in sorted(source.iterdir()) if given else ():
        if file.is_file():
            secrets.write(folder / CERTIFICATES / file.name, file.read_bytes())


def servers_of(layout: Layout, config: Mapping[str, Any]) -> Servers:
    parts = layout.parts
    encoding, life = config.get("access_log_encoding", "TEXT"), config.get("secret_ttl")
    return Servers(f"https://{parts['control']}:15012", f"http://{parts['jaeger']}:4318", layout.mesh_id, encoding, life)


def _consul_files(layout: Layout, token: str, secrets: Secrets) -> None:
    place = ConsulPlace("/devmesh/consul/data", bind=address(layout, "consul", REGISTRY_NETWORK), client="0.0.0.0")
    secrets.json(layout.part_folder("consul") / "consul.json", consul_config(place, ConsulPorts(8500, 8300, 8301), token), uid=0)


def _ca_files(layout: Layout, token: str, secrets: Secrets) -> dict[str, str]:
    """The CA's files; gives each workload's token, of which the CA gets the hash only."""
    folder = layout.part_folder("ca")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    grants = folder / "grants.json"
    grants.unlink(missing_ok=True)
    tokens = mint_tokens(grants, layout.topology.workloads)
    secrets.write(grants, grants.read_bytes())
    secrets.write(folder / "mesh-token", token.encode())
    arguments = {
        "directory": CA_DIRECTORY,
        "token_file": f"{FOLDER}/mesh-token",
        "otlp_url": servers_of(layout, {}).traces_url,
        "host_names": [layout.parts["ca"]],
    }
    settings = {
        "arguments": arguments,
        "listen": [["0.0.0.0", 15011]],
        "grants": f"{FOLDER}/grants.json",
        "trust": str(Path(ROOT_FILE).parent),
    }
    secrets.json(folder / "settings.json", settings)
    return tokens


def scrape_targets(layout: Layout) -> list[Target]:
    """Every sidecar by its address on the network that Prometheus is on."""
    return [Target.of(one, f"{layout.addresses.of(CONTROL_NETWORK, container_of(one))}:15090") for one in layout.topology.workloads]


def _addon_files(layout: Layout) -> None:
    if layout.joins:
        return
    if PROMETHEUS in layout.addons:
        sidecars = scrape_targets(layout)
        control = control_plane(f"{address(layout, 'control', HOST_NETWORK)}:15014")
        write_prometheus(layout.part_folder(PROMETHEUS), FOLDER, sidecars, control)
    if GRAFANA in layout.addons:
        write_grafana(layout.part_folder(GRAFANA), FOLDER, f"http://{layout.parts[PROMETHEUS]}:9090")


def container_of(workload: Workload) -> str:
    """Who has the workload's addresses."""
    return workload.name if workload.gateway else pod_of(workload.name)


def ca_address(layout: Layout) -> dict[str, str]:
    return {"url": f"https://{layout.parts['ca']}:15011", "root_file": ROOT_FILE, "token_file": f"{FOLDER}/token"}


def _control_files(layout: Layout, token: str, own_token: str, secrets: Secrets) -> None:
    folder = layout.part_folder("control")
    secrets.write(folder / "mesh-token", token.encode())
    secrets.write(folder / "token", own_token.encode())
    arguments = {
        "registry_url": f"http://{layout.parts['consul']}:8500",
        "token_file": f"{FOLDER}/mesh-token",
        "ca": ca_address(layout),
        "spiffe_id": str(CONTROL_PLANE),
        "otlp_url": servers_of(layout, {}).traces_url,
    }
    # The admin API only where this machine's own tools come from: no pod is on that network.
    listen = [["0.0.0.0", 15012], [address(layout, "control", HOST_NETWORK), 15014]]
    secrets.json(folder / "settings.json", {"arguments": arguments, "listen": listen})


def bootstrap_of(layout: Layout, workload: Workload, servers: Servers) -> dict[str, Any]:
    addresses = [] if workload.gateway else [f"{workload.ip}:{port}" for port in workload.ports]
    bootstrap = sidecar_bootstrap(workload, servers, ca_address(layout), "/dev/stdout", {one: one for one in addresses}, FILES)
    sockets = {"sockets": [*data_sockets(workload), *OWN_SOCKETS]}
    if workload.gateway:
        return bootstrap | sockets
    names = {"refused_names": refused_names(layout, workload), "alias_names": addresses_by_name(layout, workload)}
    spans = {"elsewhere": {COLLECTOR: f"{layout.parts['jaeger']}:4318"}, "excluded": [COLLECTOR]}
    return bootstrap | sockets | names | spans


OWN_SOCKETS: tuple[dict[str, Any], ...] = (
    {"role": "admin", "address": "127.0.0.1", "port": 15000},
    {"role": "health", "address": "0.0.0.0", "port": 15021},
    {"role": "prometheus", "address": "0.0.0.0", "port": 15090},
)


def data_sockets(workload: Workload) -> list[dict[str, Any]]:
    """A gateway's are published ports and mean its own address; redirected connections arrive at sockets that the pod hands over."""
    if not workload.gateway:
        return []
    return [{"role": "published", "address": "0.0.0.0", "port": port, "original": f"{workload.ip}:{port}"} for port in workload.ports]
