"""What a compose file says of a service that plain processes cannot have: it is named by `up` without an engine, not dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devmesh.config.topology_types import Workload

# Read by every runtime; or about the image, which a plain process has none of.
READ = frozenset(
    [
        "image",
        "build",
        "command",
        "entrypoint",
        "environment",
        "env_file",
        "labels",
        "expose",
        "ports",
        "deploy",
        "scale",
        "networks",
        "container_name",
        "hostname",
        "links",
        "restart",
        "profiles",
        "extends",
        "init",
        "platform",
        "pull_policy",
        "annotations",
        "attach",
        "depends_on",
        "healthcheck",
    ]
)


def container_keys(service: Mapping[str, Any]) -> Iterator[str]:
    """Give the keys of one service that do nothing for a plain process, in the file's order."""
    for key, value in service.items():
        if key == "working_dir":
            if isinstance(value, str) and PurePosixPath(value).is_absolute():  # a relative one is a folder beside the compose file
                yield key
        elif key not in READ and not str(key).startswith("x-") and value not in (None, False, [], {}):
            yield str(key)


def told(workloads: Iterable[Workload]) -> str:
    """Name them all in one line, by key; "" when there are none."""
    whose: dict[str, list[str]] = {}
    for workload in workloads:
        for key in workload.container_keys:
            names = whose.setdefault(key, [])
            if workload.compose_service not in names:
                names.append(workload.compose_service)
    return ", ".join(f"{key} ({', '.join(names)})" for key, names in sorted(whose.items()))
