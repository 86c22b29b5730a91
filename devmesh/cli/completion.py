"""completion: the script that a shell sources, as istioctl and kubectl have it."""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Annotated

import typer


class Shell(str, Enum):  # noqa: UP042 - Typer takes choices from it
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def register(app: typer.Typer) -> None:
    app.command()(completion)


def completion(shell: Annotated[Shell, typer.Argument(help="Whose script.")]) -> None:
    """Print a shell's completion script: source <(devmesh completion bash)."""
    # Typer prints it when it finds this variable; there is no public function for it.
    environment = {**os.environ, "_DEVMESH_COMPLETE": f"source_{shell.value}"}
    program = "import sys; sys.argv[0] = 'devmesh'; from devmesh.cli.app import main; main()"
    os.execve(sys.executable, [sys.executable, "-c", program], environment)  # noqa: S606 - ourselves
