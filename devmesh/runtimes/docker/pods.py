"""A workload's three containers: pod, sidecar, app."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devmesh.config.topology import GATEWAY, TRAFFIC_LABELS, Service, Topology, Workload
from devmesh.errors import DevmeshError
from devmesh.pods.names import host_aliases
from devmesh.runtimes.bootstrap import tracing_environment
from devmesh.runtimes.docker.layout import COLLECTOR, CONTROL_NETWORK, HOST_NETWORK, VIPS, Json, Layout, networks_of, pod_of, sidecar_of
from devmesh.runtimes.docker.pod import SIDECAR_UID, Rules, words

# What the engine refuses of a container that joins another's network namespace.
MOVED = (
    "ports", "expose", "networks", "hostname", "domainname", "dns", "dns_opt", "dns_search", "extra_hosts", "links", "external_links",
    "mac_address",
)  # fmt: skip
ENTRY = ["python3", "-m", "devmesh.runtimes.docker.entry"]
FOLDER = "/etc/devmesh"
DRAIN_GRACE = "8s"  # a sidecar drains for 5 s
TRUST_VOLUME = "mesh-trust"
ROLE_LABEL, WORKLOAD_LABEL = "devmesh.role", "devmesh.workload"
READINESS = (
    "exec 3<>/dev/tcp/{host}/{port} && printf 'GET /healthz/ready HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n' >&3"
    " && read -r line <&3 && [[ $$line == *' 200 '* ]]"
)


def healthcheck(command: list[str], *, start_interval: bool, early: bool = True) -> Json:
    """`early`: look soon after the start, for who waits for it. Nobody does for a sidecar, whose readiness the control plane knows.

    Each look starts a process in its container, which costs the engine some 50 ms of CPU.
    """
    check: Json = {"test": command, "timeout": "3s", "retries": 3}
    if start_interval:  # engine 25 and later
        return check | {"interval": "10s", "start_period": "60s", "start_interval": "2s" if early else "10s"}
    return check | {"interval": "5s" if early else "10s", "start_period": "60s"}


def readiness(host: str, port: int) -> list[str]:
    """A check without starting Python: bash speaks HTTP."""
    return ["CMD", "bash", "-c", READINESS.format(host=host, port=port)]


def ours(layout: Layout, role: str, workload: str = "", **settings: Any) -> Json:
    """What all containers of the devmesh image have in common."""
    labels = {ROLE_LABEL: role} | ({WORKLOAD_LABEL: workload} if workload else {})
    return {
        "image": layout.images["devmesh"],
        "entrypoint": ENTRY,
        "user": f"{SIDECAR_UID}:{SIDECAR_UID}",
        "read_only": True,
        "tmpfs": ["/tmp:mode=1777"],  # noqa: S108 - the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "pids_limit": 256,
        "labels": labels,
    } | settings


def folder(path: Path) -> Json:
    """The container's own settings and secrets, readable only there."""
    return {"type": "bind", "source": str(path), "target": FOLDER, "read_only": True, "bind": {"create_host_path": False}}


def trust_volume(*, read_only: bool) -> Json:
    return {"type": "volume", "source": TRUST_VOLUME, "target": "/var/lib/devmesh/trust", "read_only": read_only}


def triple(layout: Layout, service: Mapping[str, Any], workload: Workload, index: int) -> dict[str, Json]:
    return {
        pod_of(workload.name): _pod(layout, service, workload, index),
        sidecar_of(workload.name): _sidecar(layout, workload),
        workload.name: _app(layout, service, workload, index),
    }


def refuse(name: str, service: Mapping[str, Any], place: str = "") -> None:
    """Raise DevmeshError for what no pod can be made of; `place` is where the service stands, as the message begins."""
    if service.get("network_mode"):
        raise DevmeshError(
            f"{place}service {name} has network_mode: {service['network_mode']}, and a pod needs networks of its own",
            f"take it out, or opt out of the mesh: {name}: x-devmesh: {{inject: false}}",
        )


def _pod(layout: Layout, service: Mapping[str, Any], workload: Workload, index: int) -> Json:
    sysctls = {key: value for key, value in _mapping(service.get("sysctls")).items() if key.startswith("net.")}
    moved = {key: service[key] for key in MOVED if service.get(key) and key not in ("networks", "ports", "extra_hosts", "links")}
    moved |= {"ports": ports} if (ports := _ports(layout, service, workload, index)) else {}
    moved |= {"links": links} if (links := _links(layout, service)) else {}
    return (
        ours(layout, "pod", workload.name)
        | {
            "command": ["pod", *rules_of(layout, workload).arguments()],
            "user": "0:0",
            "cap_add": ["NET_ADMIN"],
            "hostname": workload.name,
            "mem_limit": "64m",
            "stop_grace_period": DRAIN_GRACE,
            "extra_hosts": [*_hosts(service.get("extra_hosts")), *vip_hosts(layout.whole, workload)],
            "networks": _networks(layout, service, workload, index),
        }
        | moved
        | ({"sysctls": sysctls} if sysctls else {})
    )


def rules_of(layout: Layout, workload: Workload) -> Rules:
    """Istio's annotations, given as labels."""
    given = {key.removeprefix(TRAFFIC_LABELS): value for key, value in workload.annotations.items()}

    def listed(name: str) -> tuple[str, ...]:
        return words(given.get(name, ""))

    return Rules(
        control=layout.control_subnet(),
        vips=VIPS,
        exclude_inbound_ports=listed("excludeInboundPorts"),
        exclude_outbound_ports=listed("excludeOutboundPorts"),
        exclude_outbound_ranges=listed("excludeOutboundIPRanges"),
        include_outbound_ranges=listed("includeOutboundIPRanges") if "includeOutboundIPRanges" in given else ("*",),
    )


def vip_hosts(topology: Topology, workload: Workload) -> list[str]:
    """Every service's names, for `extra_hosts`."""
    return [
        f"{name}:{service.cluster_ip}"
        for service in topology.services
        for given in (service.name, *service.aliases_for(workload))
        for name in _forms(service, given, workload)
    ]


def _networks(layout: Layout, service: Mapping[str, Any], workload: Workload, index: int) -> Json:
    """With the names by which services outside the mesh call this one; inside, a pod's own names come first (`vip_hosts`)."""
    pod = pod_of(workload.name)
    names = [workload.compose_service, *([service["container_name"]] if service.get("container_name") and index == 0 else [])]
    out: Json = {}
    for network, settings in networks_of(service).items():
        aliases = list(dict.fromkeys([*names, *settings.get("aliases", ())]))
        kept = {key: value for key, value in settings.items() if key not in ("aliases", "ipv4_address")}
        out[network] = kept | {"aliases": aliases, "ipv4_address": layout.addresses.of(network, pod)}
    out[CONTROL_NETWORK] = {"ipv4_address": layout.addresses.of(CONTROL_NETWORK, pod)}
    return out


def _ports(layout: Layout, service: Mapping[str, Any], workload: Workload, index: int) -> list[Any]:
    """A host port belongs to one container: the first replica has it; any free one each replica gets, also of a range.

    What publishes no TCP port gets one on loopback, as in the local runtime, for a browser or curl on this machine.
    """
    given = service.get("ports") or ()
    ports: list[Any] = [port for port in given if index == 0 or not _is_one(str(port.get("published") or "0"))]
    if workload.name in layout.loopback:
        ports.append(f"127.0.0.1:{layout.loopback[workload.name] or ''}:{workload.ports[0]}")
    return ports


def _is_one(published: str) -> bool:
    """Whether it is one host port; of a range (8080-8090) the engine takes one that is free."""
    return published.isdecimal() and published != "0"


def _links(layout: Layout, service: Mapping[str, Any]) -> list[str]:
    """To what has no address in the mesh: another link's name is one of a service (`vip_hosts`), or of one version, which nobody may call."""
    out = []
    for link in service.get("links") or ():
        target, _, alias = link.partition(":")
        replicas = layout.workloads_of(target)
        if not replicas or not replicas[0].ports:
            out.append(f"{pod_of(replicas[0].name) if replicas else target}:{alias or target}")
    return out


def refused_names(layout: Layout, caller: Workload) -> list[str]:
    """What the engine's resolver would answer with a container's address, a way past the mesh, and a cluster's would not answer.

    They are single containers, one version among several, services of another namespace by their short names, the mesh's own.
    """
    topology = layout.whole
    known = {name for one in topology.services for given in (one.name, *one.aliases_for(caller)) for name in _forms(one, given, caller)}
    workloads = [one for one in topology.workloads if not one.gateway]
    pods = [pod_of(one.name) for one in workloads]
    single = [*pods, *(f"{layout.project}-{name}-1" for name in pods), *(one.name for one in workloads)]
    versions = [one.name for one in topology.versions if one.is_known_to(caller)]
    elsewhere = [name for one in topology.services if one.namespace != caller.namespace for name in (one.name, *one.aliases_for(caller))]
    return sorted({*single, *versions, *elsewhere, *layout.parts.values()} - known - addresses_by_name(layout, caller).keys())


def addresses_by_name(layout: Layout, caller: Workload) -> dict[str, str]:
    """Workloads without a port, which have no address in the mesh: where the caller reaches them, which is not the control network."""
    found: dict[str, str] = {}
    for one in layout.topology.workloads:
        address = None if one.ports or one.gateway or one.namespace != caller.namespace else one.address_for(caller)
        if address is not None:
            found.setdefault(one.compose_service, address)
    return found


def _forms(service: Service, name: str, caller: Workload) -> list[str]:
    return host_aliases(name, service.namespace, caller.namespace)


def _hosts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [
            f"{name}:{address}"
            for name, addresses in value.items()
            for address in ([addresses] if isinstance(addresses, str) else addresses)
        ]
    return [str(one).replace("=", ":", 1) for one in value or ()]


def _mapping(value: Any) -> Json:
    if isinstance(value, list):
        return dict(str(one).partition("=")[::2] for one in value)
    return dict(value or {})


def _sidecar(layout: Layout, workload: Workload) -> Json:
    return ours(layout, "sidecar", workload.name) | {
        "command": ["sidecar", f"{FOLDER}/bootstrap.json"],
        "network_mode": f"service:{pod_of(workload.name)}",
        "volumes": [folder(layout.workload_folder(workload.name)), trust_volume(read_only=True)],
        "mem_limit": "512m",
        "stop_grace_period": DRAIN_GRACE,
        "healthcheck": healthcheck(readiness("127.0.0.1", 15021), start_interval=layout.start_interval, early=False),
        "depends_on": {pod_of(workload.name): {"condition": "service_started"}},
    }


def _app(layout: Layout, service: Mapping[str, Any], workload: Workload, index: int) -> Json:
    kept = {key: value for key, value in service.items() if key not in (*MOVED, "scale", "profiles", "depends_on", "x-devmesh", "sysctls")}
    if index and "container_name" in kept:
        del kept["container_name"]
    deploy = {key: value for key, value in (kept.pop("deploy", None) or {}).items() if key != "replicas"}
    sysctls = {key: value for key, value in _mapping(service.get("sysctls")).items() if not key.startswith("net.")}
    if "build" in kept and not kept.get("image"):
        kept["image"] = f"{layout.project}-{workload.compose_service}"  # compose's own default; every replica's
    if hidden := hidden_folders(layout, service):
        kept["volumes"] = [*kept["volumes"], *hidden]
    labels = _mapping(service.get("labels")) | {ROLE_LABEL: "app", WORKLOAD_LABEL: workload.name}
    environment = tracing_environment(workload, f"http://{COLLECTOR}") | _mapping(service.get("environment"))
    return (
        kept
        | ({"deploy": deploy} if deploy else {})
        | ({"sysctls": sysctls} if sysctls else {})
        | {
            "labels": labels,
            "environment": environment,
            "network_mode": f"service:{pod_of(workload.name)}",
            "depends_on": depends_on(layout, service) | {sidecar_of(workload.name): {"condition": "service_healthy"}},
        }
    )


def hidden_folders(layout: Layout, service: Mapping[str, Any]) -> list[Json]:
    """A project folder that an app mounts has `.devmesh` in it, and in that every token of the mesh: the app sees an empty folder there."""
    out = []
    for volume in service.get("volumes") or ():
        if not isinstance(volume, Mapping) or volume.get("type") != "bind":
            continue
        source, secret = Path(volume["source"]), layout.folder.parent
        if secret.is_relative_to(source) and secret != source:
            out.append({"type": "tmpfs", "target": str(Path(volume["target"]) / secret.relative_to(source))})
        elif source.is_relative_to(secret):
            raise DevmeshError(
                f"{source} holds the mesh's secrets, and no container may mount it", "take that volume out of the compose file"
            )
    return out


def depends_on(layout: Layout, service: Mapping[str, Any]) -> Json:
    """What the user's service waits for, by replica."""
    out: Json = {}
    for name, settings in (service.get("depends_on") or {}).items():
        replicas = [one.name for one in layout.workloads_of(name)]
        if not replicas and name not in layout.topology.outside:
            continue  # of a profile that is not active, and not required: compose has checked it
        out |= dict.fromkeys(replicas or [name], settings)
    return out


def gateway_ports(layout: Layout) -> list[tuple[int, int]]:
    ports = layout.ports
    return [(ports.gateway, 8080), (ports.gateway_https, 8443), (ports.gateway_tcp, 31400)]


def gateway(layout: Layout, workload: Workload) -> Json:
    """A gateway has no app and intercepts nothing: one container on every network of the user's; only the ingress gateway is published."""
    networks = {
        name: {"ipv4_address": layout.addresses.of(name, workload.name)} for name in (*layout.networks, CONTROL_NETWORK, HOST_NETWORK)
    }
    published = [f"127.0.0.1:{port}:{own}" for port, own in gateway_ports(layout)]
    return ours(layout, "gateway", workload.name) | {
        "command": ["sidecar", f"{FOLDER}/bootstrap.json"],
        "hostname": workload.name,
        "networks": networks,
        "volumes": [folder(layout.workload_folder(workload.name)), trust_volume(read_only=True)],
        "mem_limit": "512m",
        "stop_grace_period": DRAIN_GRACE,
        "healthcheck": healthcheck(readiness("127.0.0.1", 15021), start_interval=layout.start_interval, early=False),
        **({"ports": published} if workload.name == GATEWAY else {}),
    }
