"""up, down, logs, restart, stop, start, version: what needs no registry, and so starts quickly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from devmesh import __version__
from devmesh.cli import output
from devmesh.cli.options import Compose, ComposeFile, Output, seconds
from devmesh.cli.output import Format
from devmesh.cli.progress import Progress
from devmesh.cli.settings import Files, Profile, SetFlags, settings
from devmesh.errors import UsageError
from devmesh.running import RunningMesh
from devmesh.runtimes.choose import choose
from devmesh.runtimes.runtime import LogQuery

INTERCEPTIONS = ("auto", "namespace", "proxy")


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(logs)
    app.command()(restart)
    app.command()(stop)
    app.command()(start)
    app.command()(version)


def up(
    file: Files = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="docker, local, or auto: docker where an engine answers. [default: $DEVMESH_RUNTIME, else auto]", show_default=False
        ),
    ] = None,
    profile: Profile = None,
    set_: SetFlags = None,
    interception: Annotated[
        str, typer.Option(help="namespace (pods, apps unmodified), proxy (HTTP_PROXY), or auto: namespace where the machine allows it.")
    ] = "auto",
    compose_profile: Annotated[
        list[str] | None, typer.Option("--compose-profile", help="A profile of the compose file to run too; may be given again.")
    ] = None,
    wait_timeout: Annotated[
        str | None,
        typer.Option(help="How long to wait until everything is ready, e.g. 2m. [default: 30s; on Docker 60s]", show_default=False),
    ] = None,
) -> None:
    """Bring the mesh up and return when every workload is ready."""
    if interception not in INTERCEPTIONS:
        raise UsageError(f"--interception {interception!r} is none of {', '.join(INTERCEPTIONS)}", "devmesh up --interception auto")
    patience = seconds(wait_timeout, "--wait-timeout") if wait_timeout else None
    compose, choices = settings(profile, file, set_)
    chosen, why = choose(runtime)
    mesh = RunningMesh.of(compose)

    output.note(
        f"devmesh {__version__}: {mesh.compose_file.parent.name}, profile {choices.profile}, runtime {chosen}"
        + (f" ({why})" if why else "")
    )
    told = {"interception": interception, "runtime": chosen, "compose_profiles": compose_profile or [], "wait_timeout": patience}
    with Progress() as progress:
        mesh.up({**choices.to_json(), **told}, progress.tell)
    output.urls(asyncio.run(mesh.urls(mesh.state())))


def down(
    file: ComposeFile = None, volumes: Annotated[bool, typer.Option("--volumes", help="Forget what the mesh kept, too.")] = False
) -> None:
    """Stop everything that `up` started."""
    mesh = RunningMesh.of(file)
    stopped = asyncio.run(mesh.down(volumes=volumes))
    forgotten = "; what it had kept is gone" if volumes else ""
    output.note(("stopped" if stopped else f"nothing is up in {mesh.compose_file.parent}") + forgotten)


def logs(
    service: Annotated[str | None, typer.Argument(help="A service, workload or part (control, ca, registry, collector).")] = None,
    compose_file: Compose = None,
    access: Annotated[bool, typer.Option("--access", help="The sidecars' access logs, as Istio prints them.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow")] = False,
    tail: Annotated[int, typer.Option(help="Lines of each log.")] = 100,
    since: Annotated[str | None, typer.Option(help="Only what is younger, e.g. 5m; on Docker, where lines have times.")] = None,
) -> None:
    """App and sidecar logs, one prefix each."""
    query = LogQuery(service, access, follow, tail, seconds(since, "--since") if since else None)
    mesh = RunningMesh.of(compose_file)
    if access and not logs_access(mesh.files.read_state() or {}):
        output.note("sidecars of this mesh log nothing; hint: devmesh up --set meshConfig.accessLogFile=/dev/stdout")
    for who, line in mesh.runtime.logs(query):
        typer.echo(f"{who} | {line}")


def logs_access(state: Mapping[str, Any]) -> bool:
    """Whether `meshConfig.accessLogFile` is set, as far as `up` wrote down."""
    config = state.get("settings", {}).get("mesh_config", {})
    return bool(config.get("access_log_file", True))


def _action(name: str, target: str, compose_file: Path | None, *, alone: bool = False) -> None:
    workloads = asyncio.run(RunningMesh.of(compose_file).act(name, target, alone=alone))
    output.note(f"{name}: {', '.join(workloads)}")


def restart(service: str, compose_file: ComposeFile = None) -> None:
    """Restart a service's apps; its sidecars stay."""
    _action("restart", service, compose_file)


def stop(service: str, compose_file: ComposeFile = None) -> None:
    """Stop a service's apps; callers get what Istio gives them then."""
    _action("stop", service, compose_file)


def start(
    service: str,
    compose_file: ComposeFile = None,
    no_deps: Annotated[bool, typer.Option("--no-deps", help="Neither start nor wait for what it depends on.")] = False,
) -> None:
    """Start a service's apps again, after whatever they depend on that does not run."""
    _action("start", service, compose_file, alone=no_deps)


def version(form: Output = Format.table) -> None:
    """This devmesh's version."""
    if form is Format.table:
        typer.echo(f"devmesh {__version__}")
    else:
        output.data({"version": __version__}, form)
