"""The complete project: the user's services as pods, those outside the mesh as they are, the mesh's own containers, networks, volumes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from devmesh.config.topology_types import Topology
from devmesh.runtimes.docker.layout import (
    ADDON_VOLUMES,
    CONTROL_NETWORK,
    HOST_NETWORK,
    OWN_VOLUMES,
    REGISTRY_NETWORK,
    Json,
    Layout,
    pod_of,
    sidecar_of,
)
from devmesh.runtimes.docker.parts import render_parts
from devmesh.runtimes.docker.pods import TRUST_VOLUME, depends_on, gateway, triple

KEPT = ("volumes", "secrets", "configs")
HEAD = "# Made by devmesh from {file}: changes here are lost at the next `devmesh up`.\n"


def render(layout: Layout) -> Json:
    """Give the project as compose reads it. Raises DevmeshError for a service that cannot be in a pod."""
    services: dict[str, Json] = {} if layout.joins else render_parts(layout)
    for workload in layout.topology.workloads:
        if workload.gateway:
            services[workload.name] = gateway(layout, workload)
            continue
        index = layout.workloads_of(workload.compose_service).index(workload)
        services |= triple(layout, layout.config["services"][workload.compose_service], workload, index)
    for name in layout.topology.outside:
        services[name] = _outside(layout, layout.config["services"][name])
    kept = {key: layout.config[key] for key in KEPT if layout.config.get(key)}
    volumes = kept.pop("volumes", {}) | _own_volumes(layout)
    return {"name": layout.project, "services": services, "networks": _networks(layout), "volumes": volumes, **kept}


def _own_volumes(layout: Layout) -> Json:
    if layout.joins:
        return {TRUST_VOLUME: {"external": True, "name": layout.joins.trust_volume}}
    return {name: {} for name in (*OWN_VOLUMES, *(ADDON_VOLUMES[one] for one in layout.addons))}


def without_waiting(project: Json, topology: Topology) -> Json:
    """The same containers, with apps that do not wait for their sidecars' health checks: for who knows already that the sidecars are ready."""
    apps = {one.name: sidecar_of(one.name) for one in topology.workloads if not one.gateway}
    started = {"condition": "service_started"}
    services = {
        name: service | ({"depends_on": service["depends_on"] | {apps[name]: started}} if name in apps else {})
        for name, service in project["services"].items()
    }
    return project | {"services": services}


def _outside(layout: Layout, service: Mapping[str, Any]) -> Json:
    """A service that opted out: as the user wrote it, with the names of what became pods."""
    out = {key: value for key, value in service.items() if key not in ("x-devmesh", "profiles", "depends_on")}
    mode, _, target = str(service.get("network_mode") or "").partition(":")
    replicas = layout.workloads_of(target) if mode == "service" else []
    if replicas:
        out["network_mode"] = f"service:{pod_of(replicas[0].name)}"
    waits = depends_on(layout, service)
    return out | ({"depends_on": waits} if waits else {})


def _networks(layout: Layout) -> Json:
    out: Json = {}
    for name in layout.networks:
        settings = dict((layout.config.get("networks") or {}).get(name) or {})
        subnet = layout.addresses.subnets[name]
        if subnet.ours:
            pool = {"subnet": str(subnet.network), "ip_range": str(subnet.dynamic)}
            others = ((settings.get("ipam") or {}).get("config")) or []
            settings["ipam"] = {"config": [pool, *others]}
        out[name] = settings
    if layout.joins:
        return out
    for name, internal in ((REGISTRY_NETWORK, True), (CONTROL_NETWORK, True), (HOST_NETWORK, False)):
        subnet = layout.addresses.subnets[name]
        pool = {"subnet": str(subnet.network), "ip_range": str(subnet.dynamic)}
        out[name] = {"ipam": {"config": [pool]}} | ({"internal": True} if internal else {})
    return out


def as_yaml(project: Json, source: str) -> str:
    """The text of the rendered file."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096  # a command folded over lines is hard to read
    yaml.representer.ignore_aliases = lambda _: True
    out = io.StringIO()
    yaml.dump(project, out)
    return HEAD.format(file=source) + out.getvalue()
