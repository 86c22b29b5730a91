"""`compose/`: what comes with the package and is not Python: the list of images, the Dockerfile, Grafana's dashboards."""

from __future__ import annotations

from pathlib import Path

import devmesh
from devmesh.errors import InternalError


def compose_folder() -> Path:
    """Inside the package when it is installed, beside it in a source tree."""
    package = Path(devmesh.__file__).parent
    for folder in (package / "compose", package.parent / "compose"):
        if (folder / "images.yaml").is_file():
            return folder
    raise InternalError(f"compose/images.yaml is missing from the package in {package}", "install devmesh again")
