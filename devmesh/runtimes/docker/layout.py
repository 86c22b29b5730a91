"""What a rendered project is made from: names, addresses, host ports, images and folders, all decided before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Any

from devmesh.config.topology import Topology, Workload
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.addresses import Addresses, Claim, Subnet, choose_subnets
from devmesh.runtimes.docker.engine import ExistingNetwork

Json = dict[str, Any]
PARTS = ("consul", "ca", "control", "jaeger")
REGISTRY_NETWORK, CONTROL_NETWORK, HOST_NETWORK = "mesh-registry", "mesh-control", "mesh-host"
OWN_NETWORKS = (REGISTRY_NETWORK, CONTROL_NETWORK, HOST_NETWORK)
OWN_VOLUMES = ("mesh-consul", "mesh-ca", "mesh-trust")
ADDON_VOLUMES: Mapping[str, str] = {"prometheus": "mesh-prometheus", "grafana": "mesh-grafana"}
VIPS = "240.240.0.0/15"  # Istio's auto-allocation range, and the one beside it for what is no service
COLLECTOR = "240.241.0.2:4318"  # stands for the collector's OTLP, which apps have no other way to


@dataclass(frozen=True, slots=True)
class HostPorts:
    """Where the mesh's own ports are published, all on 127.0.0.1."""

    registry: int = 8500
    query: int = 16686
    otlp_grpc: int = 4317
    otlp: int = 4318
    control: int = 15014
    gateway: int = 8080
    gateway_https: int = 8443
    gateway_tcp: int = 31400
    prometheus: int = 9090
    grafana: int = 3000

    @staticmethod
    def choose(prefer: Callable[[int], int]) -> HostPorts:
        """`prefer` gives the port or, when it is taken, a free one."""
        defaults = HostPorts()
        return HostPorts(**{name: prefer(getattr(defaults, name)) for name in HostPorts.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Joins:
    """A remote project's first mesh (profile `remote`): its project and folder, its volume with the roots, the whole mesh as it will be."""

    project: str
    folder: str
    trust_volume: str
    whole: Topology
    gateway_url: str | None
    gateway_https_port: int | None


@dataclass(frozen=True, slots=True)
class Layout:
    """`topology` has each workload's address on its first network; `parts` maps the mesh's own containers to their service names.

    `images` maps roles to references, `loopback` workloads that publish nothing to a port on 127.0.0.1 (0: any).
    """

    project: str
    folder: Path
    config: Json
    topology: Topology
    addresses: Addresses
    networks: tuple[str, ...]
    parts: Mapping[str, str]
    ports: HostPorts
    images: Mapping[str, str]
    mesh_id: str
    start_interval: bool
    loopback: Mapping[str, int]
    addons: tuple[str, ...] = ()
    joins: Joins | None = None

    @property
    def whole(self) -> Topology:
        """Whom an app can call, in both projects where there are two."""
        return self.joins.whole if self.joins else self.topology

    def control_subnet(self) -> str:
        return str(self.addresses.subnets[CONTROL_NETWORK].network)

    def workloads_of(self, service: str) -> list[Workload]:
        return [one for one in self.topology.workloads if one.compose_service == service]

    def part_folder(self, part: str) -> Path:
        return self.folder / "parts" / part

    def workload_folder(self, workload: str) -> Path:
        """Apart from the mesh's own: a user's service may be called `consul`."""
        return self.folder / "workloads" / workload


def pod_of(workload: str) -> str:
    return f"{workload}-pod"


def sidecar_of(workload: str) -> str:
    return f"{workload}-sidecar"


def networks_of(service: Mapping[str, Any]) -> dict[str, Json]:
    """A normalised service's networks with their settings; compose's `default` when it names none."""
    given = service.get("networks")
    if isinstance(given, list):
        return {name: {} for name in given}
    return {name: dict(settings or {}) for name, settings in given.items()} if given else {"default": {}}


def own_names(taken: Iterable[str], addons: Iterable[str] = ()) -> dict[str, str]:
    """Service names of the mesh's own containers; a user's service keeps its name, and ours gives way."""
    busy = set(taken)
    out = {}
    for part in (*PARTS, *addons):
        name = part
        while name in busy:
            name = f"mesh-{name}"
        out[part] = name
    return out


def plan_subnets(
    config: Mapping[str, Any],
    project: str,
    existing: Sequence[ExistingNetwork],
    routes: Sequence[IPv4Network],
    containers: int,
    own: Sequence[str] = OWN_NETWORKS,
    claimed: Claim = lambda _: True,
) -> dict[str, Subnet]:
    """A range for every network of the project: the file's, the external network's own, else a free one. Raises DevmeshError."""
    networks: Mapping[str, Any] = config.get("networks") or {}
    known, ours = {one.name: one for one in existing}, [one for one in existing if one.project != project]
    found: dict[str, Subnet] = {}
    free: list[str] = []
    for key, value in networks.items():
        settings = value or {}
        if settings.get("external"):
            found[key] = _external(key, settings.get("name") or key, known)
        elif configs := [one for one in ((settings.get("ipam") or {}).get("config") or ()) if ip_network(one["subnet"]).version == 4]:
            gateway = configs[0].get("gateway")
            found[key] = Subnet(IPv4Network(configs[0]["subnet"]), ours=False, gateway=IPv4Address(gateway) if gateway else None)
        else:
            free.append(key)
    own_routes = [subnet for one in existing if one.project == project for subnet in one.subnets]
    taken = [*(subnet for one in ours for subnet in one.subnets), *(one.network for one in found.values())]
    taken += [route for route in routes if not any(route == mine for mine in own_routes)]
    return found | choose_subnets([*free, *own], taken, containers, claimed)


def _external(key: str, name: str, known: Mapping[str, ExistingNetwork]) -> Subnet:
    one = known.get(name)
    if one is None:
        raise DevmeshError(f"network {key} is external, and the engine has no network {name}", f"docker network create {name}")
    if not one.subnets:
        raise DevmeshError(
            f"external network {name} has no IPv4 subnet, and a pod needs a fixed address on it",
            f"docker network create --subnet 10.200.0.0/24 {name}",
        )
    return Subnet(one.subnets[0], ours=False, used=one.used, gateway=one.gateway)


def with_addresses(topology: Topology, config: Mapping[str, Any], addresses: Addresses, networks: Sequence[str]) -> Topology:
    """The topology with each workload's addresses, `default`'s first; the gateway is on every network."""

    def placed(workload: Workload) -> Workload:
        names = list(networks) if workload.gateway else list(networks_of(config["services"][workload.compose_service]))
        names.sort(key=lambda name: name != "default")
        container = workload.name if workload.gateway else pod_of(workload.name)
        found = {name: addresses.of(name, container) for name in names}
        return replace(workload, ip=found[names[0]], addresses=found)

    return replace(topology, workloads=tuple(placed(one) for one in topology.workloads))
