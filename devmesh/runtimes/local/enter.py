"""A command inside a pod: nsenter(1) joins the init's namespaces, the terminal and the exit status stay the user's.

As the pod's root, which a capture (tcpdump) or a debugger needs; what it sends goes through the workload's sidecar, with its identity.
Its environment is the user's own with the app's over it, as in a container.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
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
        *ends_with_us(),
        *argv,
    ]


def ends_with_us() -> list[str]:
    """nsenter waits for its command and passes no signal on: who ends `devmesh exec` would leave the command running in the pod."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def app_environment(file: Path | None) -> dict[str, str]:
    """What the app's has of its own; nothing for a workload without an app."""
    try:
        return {} if file is None else dict(json.loads(file.read_text()))
    except FileNotFoundError:
        return {}


def enter(name: str, workload: Mapping[str, Any], argv: Sequence[str], environment: Path | None = None) -> NoReturn:
    """Replace this process; `environment` is the file with the app's own. Raises DevmeshError for a workload without a pod, or whose pod is gone."""
    init_pid = workload.get("init_pid")
    if workload.get("gateway"):
        raise DevmeshError(f"{name} is a gateway: it has no app and no pod", f"devmesh logs {name}, or devmesh proxy-config routes {name}")
    if not init_pid:
        raise DevmeshError(
            f"{name} runs in no pod: interception is {workload.get('interception', 'proxy')}",
            "devmesh down, then devmesh up --interception namespace",
        )
    if start_time(init_pid) is None:
        raise DevmeshError(f"the pod of {name} is gone", f"devmesh logs {name}-pod")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and an ignored signal stays ignored across exec
    binary = shutil.which("nsenter") or "/usr/bin/nsenter"
    command = nsenter_command(init_pid, argv, str(Path.cwd()))
    os.execve(binary, command, {**os.environ, **app_environment(environment)})  # noqa: S606 - no shell on purpose
