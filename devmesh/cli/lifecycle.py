"""up, down, status, logs, wait, restart, stop, start, version."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from devmesh import __version__
from devmesh.cli import output
from devmesh.cli.options import Compose, ComposeFile, Output, Timeout, seconds
from devmesh.cli.output import Format
from devmesh.cli.progress import Progress
from devmesh.errors import UsageError
from devmesh.mesh import Mesh
from devmesh.runtimes.choose import choose
from devmesh.runtimes.runtime import LogQuery

INTERCEPTIONS = ("auto", "namespace", "proxy")
PROFILES = ("default", "demo", "minimal", "remote", "empty")


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command("ps", hidden=True)(status)
    app.command()(logs)
    app.command()(wait)
    app.command()(restart)
    app.command()(stop)
    app.command()(start)
    app.command()(version)


def up(
    file: ComposeFile = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="docker, local, or auto: docker where an engine answers. [default: $DEVMESH_RUNTIME, else auto]", show_default=False
        ),
    ] = None,
    profile: Annotated[str, typer.Option(help="Istio's profile: demo samples every trace, default 1 %.")] = "demo",
    interception: Annotated[
        str, typer.Option(help="namespace (pods, apps unmodified), proxy (HTTP_PROXY), or auto: namespace where the machine allows it.")
    ] = "auto",
    compose_profile: Annotated[
        list[str] | None, typer.Option("--compose-profile", help="A profile of the compose file to run too; may be given again.")
    ] = None,
) -> None:
    """Bring the mesh up and return when every workload is ready."""
    if profile not in PROFILES:
        raise UsageError(f"--profile {profile!r} is none of {', '.join(PROFILES)}", "devmesh up --profile demo")
    if interception not in INTERCEPTIONS:
        raise UsageError(f"--interception {interception!r} is none of {', '.join(INTERCEPTIONS)}", "devmesh up --interception auto")
    chosen, why = choose(runtime)
    mesh = Mesh.of(file)

    output.note(f"devmesh {__version__}: {mesh.compose_file.parent.name}, runtime {chosen}" + (f" ({why})" if why else ""))
    settings = {"profile": profile, "interception": interception, "runtime": chosen, "compose_profiles": compose_profile or []}
    with Progress() as progress:
        mesh.up(settings, progress.tell)
    _print_urls(asyncio.run(mesh.status())["urls"])


def _print_urls(urls: dict[str, Any]) -> None:
    rows = [
        (name, url if url != "mtls only" else f"mtls only (devmesh curl SERVICE http://{name})") for name, url in urls["services"].items()
    ]
    rows += [(f"{name} (mesh)", url) for name, url in urls["mesh"].items()]
    output.table(("SERVICE", "URL"), rows)


def down(
    file: ComposeFile = None, volumes: Annotated[bool, typer.Option("--volumes", help="Forget what the mesh kept, too.")] = False
) -> None:
    """Stop everything that `up` started."""
    mesh = Mesh.of(file)
    stopped = asyncio.run(mesh.down(volumes=volumes))
    output.note("stopped" if stopped else f"nothing is up in {mesh.compose_file.parent}")


def status(compose_file: ComposeFile = None, form: Output = Format.table) -> None:
    """Workloads: ready, healthy, in sync, certificate, restarts."""
    answer = asyncio.run(Mesh.of(compose_file).status())
    if form is not Format.table:
        output.data(answer, form)
        return
    if not answer["supervised"]:
        output.note("the supervisor is gone; what it started still serves. hint: devmesh down, then devmesh up")
    if answer["problem"]:
        output.note(answer["problem"])
    rows = [
        (
            one["name"], "-" if one["gateway"] else one["service"], one["version"], _ports(one), _condition(one),
            (one["certificate"]["expires"] or "-")[11:16], str(one["restarts"]),
        )
        for one in answer["workloads"]
    ]  # fmt: skip
    output.table(("WORKLOAD", "SERVICE", "VERSION", "PORT", "STATE", "CERT", "RESTARTS"), rows)
    silent = [
        one["name"] for one in answer["workloads"] if one["calls_out"] is False and one["interception"] == "proxy" and not one["gateway"]
    ]
    if silent:
        output.note("\nno outbound request seen yet from:")
        for name in silent:
            output.note(f"  {name}")
        output.note("they call nobody, or ignore HTTP_PROXY and http_proxy: then their calls bypass\nthe mesh (docs/differences.md)")
    for one in answer["workloads"]:
        if one["sidecar_version"] not in (None, __version__):
            output.note(
                f"\n{one['name']}'s sidecar is devmesh {one['sidecar_version']}, this is {__version__}. hint: devmesh down, then devmesh up"
            )
    output.note("")
    _print_urls(answer["urls"])


def _ports(one: dict[str, Any]) -> str:
    return ", ".join(f"{port['port']} {port['protocol']}" for port in one["ports"]) or "-"


def _condition(one: dict[str, Any]) -> str:
    """What is not as it should be, else "ready"."""
    wrong = [
        name for name, is_so in (("not ready", one["ready"]), ("unhealthy", one["healthy"]), ("not in sync", one["synced"])) if not is_so
    ]
    return ", ".join(wrong) or "ready"


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
    for who, line in Mesh.of(compose_file).runtime.logs(query):
        typer.echo(f"{who} | {line}")


def wait(compose_file: ComposeFile = None, timeout: Timeout = "30s") -> None:
    """Return when every process is ready, every sidecar runs the newest configuration and every app takes connections."""
    limit = seconds(timeout, "--timeout")
    started = time.monotonic()
    with Progress() as progress:
        asyncio.run(Mesh.of(compose_file).wait(limit, progress.tell))
    output.note(f"  {'ready':<26} {time.monotonic() - started:6.2f} s")


def _action(name: str, target: str, compose_file: Path | None) -> None:
    workloads = asyncio.run(Mesh.of(compose_file).act(name, target))
    output.note(f"{name}: {', '.join(workloads)}")


def restart(service: str, compose_file: ComposeFile = None) -> None:
    """Restart a service's apps; its sidecars stay."""
    _action("restart", service, compose_file)


def stop(service: str, compose_file: ComposeFile = None) -> None:
    """Stop a service's apps; callers get what Istio gives them then."""
    _action("stop", service, compose_file)


def start(service: str, compose_file: ComposeFile = None) -> None:
    """Start a service's apps again."""
    _action("start", service, compose_file)


def version(form: Output = Format.table) -> None:
    """This devmesh's version."""
    if form is Format.table:
        typer.echo(f"devmesh {__version__}")
    else:
        output.data({"version": __version__}, form)
