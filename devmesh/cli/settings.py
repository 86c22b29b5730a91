"""What the mesh is brought up with: a profile, files of settings, --set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from devmesh.cli.options import say
from devmesh.config.operator.files import sort_files
from devmesh.config.operator.profiles import PROFILES, UP_DEFAULT
from devmesh.config.operator.settings import MeshChoices, choose, refuse_nothing

# `up` and `manifest generate` take settings too; what a file is, its content tells (devmesh.config.operator.files).
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "-f",
        "--file",
        "--compose-file",
        help="The compose file (default: compose.yaml here), and files of settings: an IstioOperator, or values of Istio's charts. May be given again.",
    ),
]
SetFlags = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One of istioctl's settings, e.g. meshConfig.accessLogFile=/dev/stdout; over the files. May be given again."
    ),
]
Profile = Annotated[
    str | None, typer.Option(help=f"{', '.join(PROFILES)}, as Istio means them. [default: {UP_DEFAULT}]", show_default=False)
]


def settings(profile: str | None, files: list[Path] | None, flags: list[str] | None) -> tuple[Path | None, MeshChoices]:
    """The compose file among the files, and what all of them choose; what does nothing here is told. Raises DevmeshError."""
    compose, given = sort_files(files or ())
    choices = choose(profile, given, flags or ())
    say(choices.diagnostics)
    refuse_nothing(choices)
    return compose, choices
