"""A command inside a pod: nsenter(1) joins the init's namespaces, the terminal and the exit status stay the user's.

As the pod's root, which a capture (tcpdump) or a debugger needs; what it sends goes through the workload's sidecar, with its identity.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from devmesh.errors import DevmeshError
from devmesh.runtimes.processes import start_time


def nsenter_command(init_pid: int, argv: Sequence[str], cwd: str) -> list[str]:
    """`--wd` last of all: the directory is the one outside, seen from inside."""
    return [
        "nsenter",
        f"--target={init_pid}",
        "--user",
        "--preserve-credentials",
        "--uts",
        "--mount",
        "--net",
        "--pid",
        f"--wd={cwd}",
        *argv,
    ]


def enter(name: str, workload: Mapping[str, Any], argv: Sequence[str]) -> NoReturn:
    """Replace this process. Raises DevmeshError for a workload without a pod, or whose pod is gone."""
    init_pid = workload.get("init_pid")
    if not init_pid:
        raise DevmeshError(
            f"{name} runs in no pod: interception is {workload.get('interception', 'proxy')}",
            "devmesh down, then devmesh up --interception namespace",
        )
    if start_time(init_pid) is None:
        raise DevmeshError(f"the pod of {name} is gone", f"devmesh logs {name}-pod")
    binary = shutil.which("nsenter") or "/usr/bin/nsenter"
    os.execv(binary, nsenter_command(init_pid, argv, str(Path.cwd())))  # noqa: S606 - no shell on purpose
