"""Which runtime a mesh is brought up on: the one asked for, else Docker where an engine answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from devmesh.errors import DevmeshError, UsageError
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.runtime import Runtime

NAMES = ("docker", "local")
VARIABLE = "DEVMESH_RUNTIME"


def runtime_of(name: str, compose_file: Path, files: MeshFiles) -> Runtime:
    """The runtime of that name. Each is imported alone: the SDK of the one takes longer than most commands of the other."""
    if name == "docker":
        from devmesh.runtimes.docker.runtime import DockerRuntime  # noqa: PLC0415 - as said above

        return DockerRuntime(compose_file, files)
    from devmesh.runtimes.local.runtime import LocalRuntime  # noqa: PLC0415 - as said above

    return LocalRuntime(compose_file, files)


def choose(asked: str | None, environ: Mapping[str, str] = os.environ, look: Callable[[], None] | None = None) -> tuple[str, str | None]:
    """The runtime's name, and for `auto` why not Docker. After this choice nothing changes the runtime in silence. Raises UsageError."""
    name = asked or environ.get(VARIABLE) or "auto"
    if name in NAMES:
        return name, None
    if name != "auto":
        source = "--runtime" if asked else VARIABLE
        raise UsageError(f"{source} {name!r} is none of auto, docker, local", "devmesh up --runtime auto")
    try:
        (look or _look_for_docker)()
    except DevmeshError as error:
        return "local", error.message
    return "docker", None


def _look_for_docker() -> None:
    from devmesh.runtimes.docker.compose import Compose  # noqa: PLC0415 - as in runtime_of
    from devmesh.runtimes.docker.engine import Engine  # noqa: PLC0415 - as in runtime_of

    Engine.connect()
    Compose.find()
