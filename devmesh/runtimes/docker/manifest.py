"""The rendered project as text, without starting anything: what `devmesh manifest generate` prints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devmesh.config.topology import Gateways, load_topology
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.build import build_context
from devmesh.runtimes.docker.compose import Compose
from devmesh.runtimes.docker.engine import Engine, ExistingNetwork
from devmesh.runtimes.docker.images import FOREIGN_ROLES, image, image_names
from devmesh.runtimes.docker.prepare import Surroundings, lay_out
from devmesh.runtimes.docker.project import as_yaml, render

NO_MESH_ID = "00000000-0000-0000-0000-000000000000"


def generate(compose_file: Path, folder: Path, settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> str:
    """`settings` are `up`'s. With the default ports and the first free subnets: another `up` may choose others. Raises DevmeshError."""
    profiles = settings.get("compose_profiles", ())
    compose = Compose.find(environ)
    config = compose.config(compose_file, profiles)

    def whole() -> Mapping[str, Any]:
        return compose.whole(compose_file, profiles, config)

    topology = load_topology(compose_file, profiles=profiles, exposed=_exposed(config), merged=whole, gateways=Gateways.of(settings))
    addons = settings.get("addons", ())
    images = {role: image(role, environ).reference for role in (*FOREIGN_ROLES, *addons)} | {"devmesh": _devmesh(environ)}
    layout = lay_out(config, topology, folder, images, NO_MESH_ID, Surroundings(existing=external_networks(config)), addons=addons)
    return as_yaml(render(layout), compose_file.name)


def external_networks(config: Mapping[str, Any]) -> list[ExistingNetwork]:
    """The networks that the file says are there already, as the engine knows them. Raises DevmeshError when that is needed and away."""
    names = {(one or {}).get("name") or key for key, one in (config.get("networks") or {}).items() if (one or {}).get("external")}
    return [one for one in Engine.connect().networks() if one.name in names] if names else []


def _devmesh(environ: Mapping[str, str]) -> str:
    own = image("devmesh", environ)
    return own.reference if own.overridden else build_context(image("python", environ).reference).reference


def _exposed(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """What images expose, where an engine can be asked."""
    try:
        return Engine.connect().exposed_ports(image_names(config))
    except DevmeshError:
        return {}
