"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from devmesh.cli import output
from devmesh.cli.output import Format
from devmesh.config.durations import parse_duration
from devmesh.config.model import Diagnostic
from devmesh.config.operator.files import sort_files
from devmesh.config.operator.profiles import PROFILES, UP_DEFAULT
from devmesh.config.operator.settings import MeshChoices, choose, refuse_nothing
from devmesh.errors import UsageError

ComposeFile = Annotated[Path | None, typer.Option("-f", "--file", "--compose-file", help="The compose file; default: compose.yaml here.")]
# Where -f is `--filename` or `--follow`, as kubectl and Compose have it, the mesh's compose file has only its long name.
Compose = Annotated[Path | None, typer.Option("--compose-file", help="The mesh of this compose file; default: compose.yaml here.")]
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
Output = Annotated[Format, typer.Option("-o", "--output", help="table, json or yaml.")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait for acknowledgements, e.g. 10s.")]


def settings(profile: str | None, files: list[Path] | None, flags: list[str] | None) -> tuple[Path | None, MeshChoices]:
    """The compose file among the files, and what all of them choose; what does nothing here is told. Raises DevmeshError."""
    compose, given = sort_files(files or ())
    choices = choose(profile, given, flags or ())
    say(choices.diagnostics)
    refuse_nothing(choices)
    return compose, choices


def say(diagnostics: Iterable[Diagnostic]) -> None:
    for one in diagnostics:
        output.note(output.literal(str(one)) + (f"\n  hint: {output.literal(one.hint)}" if one.hint else ""))


def seconds(text: str, option: str) -> float:
    """`300ms`, `2s`, `1m30s` in seconds, as durations in YAML are read."""
    try:
        found = parse_duration(text)
    except ValueError:
        found = -1.0
    if found < 0:
        raise UsageError(f"{option} {text!r} is no duration", f"{option} 300ms, {option} 2s or {option} 1m30s")
    return found
