"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devmesh.cli import output
from devmesh.cli.output import Format
from devmesh.config.durations import parse_duration
from devmesh.errors import DevmeshError, UsageError
from devmesh.running import RunningMesh

if TYPE_CHECKING:
    from devmesh.config.model import Diagnostic

ComposeFile = Annotated[Path | None, typer.Option("-f", "--file", "--compose-file", help="The compose file; default: compose.yaml here.")]
# Where -f is `--filename` or `--follow`, as kubectl and Compose have it, the mesh's compose file has only its long name.
Compose = Annotated[Path | None, typer.Option("--compose-file", help="The mesh of this compose file; default: compose.yaml here.")]
Output = Annotated[Format, typer.Option("-o", "--output", help="table, json or yaml.")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait for acknowledgements, e.g. 10s.")]


def service_names() -> list[str]:
    """What a shell completes a service or workload with: those of the mesh that is up here."""
    try:
        workloads = RunningMesh.of().state()["workloads"]
    except DevmeshError:
        return []
    return sorted({name for workload, one in workloads.items() for name in (workload, one["service"])})


def say(diagnostics: Iterable[Diagnostic]) -> None:
    for one in diagnostics:
        output.note(str(one) + (f"\n  hint: {one.hint}" if one.hint else ""))


def seconds(text: str, option: str) -> float:
    """`300ms`, `2s`, `1m30s` in seconds, as durations in YAML are read."""
    try:
        found = parse_duration(text)
    except ValueError:
        found = -1.0
    if found < 0:
        raise UsageError(f"{option} {text!r} is no duration", f"{option} 300ms, {option} 2s or {option} 1m30s")
    return found
