"""A compose file as Kubernetes would see it: services with VIPs and ports, workloads with addresses, labels and identities."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from devmesh.config.dependencies import Dependency
from devmesh.config.healthcheck import Healthcheck
from devmesh.config.model import SourcePosition

Protocol = Literal["http", "http2", "tcp", "auto"]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`protocol` is what proxies take it for; `protocol_source` is "app_protocol", "name", "x-devmesh", "well-known port", "traffic" or "sniffed"."""

    name: str
    port: int
    target_port: int
    app_protocol: str = ""
    protocol: Protocol = "auto"
    protocol_source: str = "sniffed"

    @property
    def is_tls(self) -> bool:
        """Whether clients send TLS of their own to it, by its declared protocol."""
        return self._declared in ("https", "tls")

    @property
    def is_grpc(self) -> bool:
        """gRPC or gRPC-Web, by its declared protocol."""
        return self.protocol == "http2" and self._declared == "grpc"

    @property
    def is_http_proxy(self) -> bool:
        return self._declared == "http_proxy"

    @property
    def server_first(self) -> str:
        """A declared protocol in which servers speak first, "" for none."""
        return self._declared if self._declared in ("mongo", "mysql") else ""

    @property
    def _declared(self) -> str:
        return (self.app_protocol or self.name).lower().partition("-")[0]


@dataclass(frozen=True, slots=True)
class Alias:
    """A further name of a service, lower case: known to workloads on one of `networks`, and to the workloads `callers`."""

    name: str
    networks: tuple[str, ...]
    callers: tuple[str, ...] = ()

    def is_known_to(self, caller: "Workload") -> bool:
        return caller.name in self.callers or not set(self.networks).isdisjoint(caller.networks)


@dataclass(frozen=True, slots=True)
class Service:
    """`aliases` are what Istio makes of Kubernetes Services of type ExternalName that name this one."""

    name: str
    namespace: str
    cluster_ip: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    aliases: tuple[Alias, ...] = ()

    def aliases_for(self, caller: "Workload") -> list[str]:
        return [one.name for one in self.aliases if one.is_known_to(caller)]

    @property
    def hostname(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class PublishedPort:
    host_ip: str
    host_port: int
    container_port: int


@dataclass(frozen=True, slots=True)
class Gateways:
    """Which of Istio's two gateways a mesh has; its profile and settings decide (devmesh.config.operator)."""

    ingress: bool = True
    egress: bool = False

    @staticmethod
    def of(settings: Mapping[str, Any]) -> "Gateways":
        """From what a runtime is given."""
        return Gateways(ingress=bool(settings.get("ingressGateway", True)), egress=bool(settings.get("egressGateway", False)))


@dataclass(frozen=True, slots=True)
class Workload:
    """`addresses` are its own by network, `ip` first, where a runtime has networks. `annotations` are the labels that Istio has as annotations, `traffic.sidecar.istio.io/...`. `networks` are the compose file's, `restart` its policy, "" for none. `container_keys` is what it says that only a container can have. `command` is None when there is nothing to run locally: the gateway, or what `local_error` says (`check_local` raises it)."""

    name: str
    namespace: str
    service: str
    version: str
    labels: Mapping[str, str]
    service_account: str
    ip: str
    ports: tuple[int, ...]
    gateway: bool = False
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    image: str | None = None
    depends_on: tuple[Dependency, ...] = ()
    healthcheck: Healthcheck | None = None
    published: tuple[PublishedPort, ...] = ()
    compose_service: str = ""
    local_error: str | None = None
    position: SourcePosition | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    restart: str = ""
    container_keys: tuple[str, ...] = ()

    def address_for(self, caller: "Workload") -> str | None:
        """Where the caller reaches it: on a network that both are on; None when they share none."""
        if not self.addresses or not caller.addresses:
            return self.ip
        return next((address for network, address in self.addresses.items() if network in caller.addresses), None)

    @property
    def spiffe_id(self) -> str:
        return f"spiffe://cluster.local/ns/{self.namespace}/sa/{self.service_account}"


@dataclass(frozen=True, slots=True)
class Topology:
    """`outside` names the compose services that opted out of the mesh; `versions` are names of one version of a service, which nobody may call."""

    name: str
    directory: str
    services: tuple[Service, ...]
    workloads: tuple[Workload, ...]
    resource_paths: tuple[Path, ...] = ()
    outside: tuple[str, ...] = ()
    versions: tuple[Alias, ...] = ()

    def service(self, name: str, namespace: str = "default") -> Service | None:
        return next((one for one in self.services if (one.name, one.namespace) == (name, namespace)), None)

    def workload(self, name: str) -> Workload | None:
        return next((one for one in self.workloads if one.name == name), None)

    def joined(self, others: Iterable["Topology"]) -> "Topology":
        """With what remote meshes add (profile `remote`): a service of the same name and namespace is one service, as in Istio's multicluster mesh.

        The first one's address, selector and ports win; a workload's name is its first owner's.
        """
        services = {(one.name, one.namespace): one for one in self.services}
        workloads = {one.name: one for one in self.workloads}
        for other in others:
            for one in other.services:
                known = services.setdefault((one.name, one.namespace), one)
                have = {port.port for port in known.ports}
                more = tuple(port for port in one.ports if port.port not in have)
                services[one.name, one.namespace] = replace(known, ports=(*known.ports, *more))
            for workload in other.workloads:
                workloads.setdefault(workload.name, workload)
        return replace(self, services=tuple(services.values()), workloads=tuple(workloads.values()))

    def with_h2(self, seen: Mapping[tuple[str, str], Collection[int]]) -> "Topology":
        """Say of sniffed ports what their traffic said; `seen` maps (service, namespace) to ports where HTTP/2 was spoken."""

        def told(service: Service) -> Service:
            ports = seen.get((service.name, service.namespace), ())
            return replace(
                service,
                ports=tuple(
                    replace(p, protocol="http2", protocol_source="traffic") if p.port in ports and p.protocol == "auto" else p
                    for p in service.ports
                ),
            )

        return replace(self, services=tuple(told(service) for service in self.services))

    def to_json(self) -> dict[str, Any]:
        """Give the KV form (devmesh/README.md): what proxies need, nothing about how to start processes."""
        return {
            "name": self.name,
            "services": [_service_json(one, protocols=True) | _aliases_json(one) for one in self.services],
            "workloads": [
                _workload_json(one)
                | {"service": one.service, "version": one.version, "ports": list(one.ports)}
                | ({"addresses": dict(one.addresses)} if one.addresses else {})
                | ({"networks": list(one.networks)} if one.networks else {})
                for one in self.workloads
            ],
        }

    def oracle_json(self) -> dict[str, Any]:
        """Give only what Istio's compiler knows: it refuses any other field."""
        return {
            "services": [_service_json(one, protocols=False) for one in self.services],
            "workloads": [_workload_json(one) for one in self.workloads],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Topology":
        return Topology(
            name=value.get("name", ""),
            directory="",
            services=tuple(_service_from(one) for one in value.get("services", ())),
            workloads=tuple(_workload_from(one) for one in value.get("workloads", ())),
        )


def _service_json(service: Service, *, protocols: bool) -> dict[str, Any]:
    ports: list[dict[str, Any]] = []
    for port in service.ports:
        known = {"name": port.name, "port": port.port, "targetPort": port.target_port, "appProtocol": port.app_protocol}
        ports.append(known | ({"protocol": port.protocol, "protocolSource": port.protocol_source} if protocols else {}))
    return {
        "name": service.name,
        "namespace": service.namespace,
        "clusterIP": service.cluster_ip,
        "selector": dict(service.selector),
        "ports": ports,
    }


def _aliases_json(service: Service) -> dict[str, Any]:
    listed = [{"name": one.name, "networks": list(one.networks), "callers": list(one.callers)} for one in service.aliases]
    return {"aliases": listed} if listed else {}


def _workload_json(workload: Workload) -> dict[str, Any]:
    return {
        "name": workload.name,
        "namespace": workload.namespace,
        "ip": workload.ip,
        "labels": dict(workload.labels),
        "serviceAccount": workload.service_account,
        "gateway": workload.gateway,
    }


def _service_from(value: Mapping[str, Any]) -> Service:
    return Service(
        name=value["name"],
        namespace=value["namespace"],
        cluster_ip=value.get("clusterIP", ""),
        selector=value.get("selector", {}),
        ports=tuple(_port_from(one) for one in value.get("ports", ())),
        aliases=tuple(Alias(one["name"], tuple(one["networks"]), tuple(one["callers"])) for one in value.get("aliases", ())),
    )


def _port_from(value: Mapping[str, Any]) -> ServicePort:
    name, app_protocol = value["name"], value.get("appProtocol", "")
    protocol, source = port_protocol(name, app_protocol, value["port"])
    return ServicePort(
        name=name,
        port=value["port"],
        target_port=value.get("targetPort") or value["port"],
        app_protocol=app_protocol,
        protocol=value.get("protocol", protocol),
        protocol_source=value.get("protocolSource", source),
    )


def _workload_from(value: Mapping[str, Any]) -> Workload:
    labels = value.get("labels", {})
    return Workload(
        name=value["name"],
        namespace=value["namespace"],
        service=value.get("service", labels.get("app", value["name"])),
        version=value.get("version", labels.get("version", "")),
        labels=labels,
        service_account=value.get("serviceAccount", "default"),
        ip=value["ip"],
        ports=tuple(value.get("ports", ())),
        gateway=value.get("gateway", False),
        addresses=value.get("addresses", {}),
        networks=tuple(value.get("networks", ())),
    )


_PROTOCOLS: Mapping[str, Protocol] = {
    "http": "http",
    "http_proxy": "http",
    "http2": "http2",
    "grpc": "http2",
    "grpc-web": "http2",
    "tcp": "tcp",
    "tls": "tcp",
    "https": "tcp",
    "mongo": "tcp",
    "mysql": "tcp",
    "redis": "tcp",
    "udp": "tcp",
}
_KUBERNETES_PROTOCOLS: Mapping[str, Protocol] = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "tcp"}
_SERVER_SPEAKS_FIRST = (25, 53, 3306, 27017)
"""SMTP, DNS, MySQL, MongoDB: sniffing would wait for a client that waits for the server."""
PROTOCOL_WORDS = tuple(_PROTOCOLS)


def port_protocol(name: str, app_protocol: str, port: int = 0) -> tuple[Protocol, str]:
    """Choose as istiod does (kube.ConvertProtocol): appProtocol if there is one, else the name up to its first "-", else sniffing."""
    word, source = (app_protocol, "app_protocol") if app_protocol else (name, "name")
    if app_protocol in _KUBERNETES_PROTOCOLS:
        return _KUBERNETES_PROTOCOLS[app_protocol], source
    lowered = word.lower()
    prefix = "grpc-web" if lowered.startswith("grpc-web") else lowered.partition("-")[0]
    if prefix in _PROTOCOLS:
        return _PROTOCOLS[prefix], source
    return ("tcp", "well-known port") if port in _SERVER_SPEAKS_FIRST else ("auto", "sniffed")
