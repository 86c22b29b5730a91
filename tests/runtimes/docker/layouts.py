"""Layouts for tests: from a compose file that is already as compose normalises it, without an engine."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from devmesh.config.topology import load_topology
from devmesh.runtimes.docker.layout import Layout
from devmesh.runtimes.docker.prepare import Surroundings, lay_out

IMAGES = {"consul": "hashicorp/consul:1", "jaeger": "jaegertracing/jaeger:2", "devmesh": "devmesh:1"}
FOLDER = Path("/src/.devmesh/docker")
MESH_ID = "11111111-2222-3333-4444-555555555555"


def layout_of(
    path: Path,
    *,
    exposed: dict[str, list[int]] | None = None,
    folder: Path = FOLDER,
    addons: tuple[str, ...] = (),
    **surroundings: Any,
) -> Layout:
    config = YAML(typ="safe").load(path)
    for service in config["services"].values():
        service.setdefault("networks", None if service.get("network_mode") else {"default": None})
    topology = load_topology(path, profiles=["site"], environ={}, exposed=exposed)
    return lay_out(
        config, topology, folder, IMAGES | {name: f"{name}:1" for name in addons}, MESH_ID, Surroundings(**surroundings), addons=addons
    )


def layout_from(directory: Path, text: str, **options: Any) -> Layout:
    path = directory / "compose.yaml"
    path.write_text(text)
    return layout_of(path, **options)
