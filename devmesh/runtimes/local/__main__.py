"""`python -m devmesh.runtimes.local COMPOSE-FILE SETTINGS`: a mesh's supervisor, detached, telling `devmesh up` what happens on standard output."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.launchers import Launchers
from devmesh.runtimes.local.preload import preload


def main() -> None:
    compose_file, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    report = os.fdopen(os.dup(1), "w")
    files = MeshFiles.of(compose_file)
    files.make()
    fd = os.open(files.log("supervisor"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    pod_launcher = preload(files, "pods") if settings.get("interception", "auto") != "proxy" else None
    launcher = preload(files)
    try:
        from devmesh.runtimes.local.life import supervise  # noqa: PLC0415 - its imports run beside the launcher's

        status = asyncio.run(supervise(compose_file, files, settings, report, Launchers(launcher, pod_launcher)))
    finally:
        for one in (launcher, pod_launcher):
            if one is not None:
                one.end()
    sys.exit(status)


if __name__ == "__main__":
    main()
