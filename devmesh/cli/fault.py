"""fault inject, list, clear."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from devmesh.cli import output
from devmesh.cli.options import ComposeFile, Output, seconds
from devmesh.cli.output import Format
from devmesh.errors import DevmeshError, UsageError
from devmesh.mesh import FaultRequest, Mesh

app = typer.Typer(help="Break things on purpose, and heal them.", no_args_is_help=True)


@app.command()
def inject(
    target: Annotated[str, typer.Argument(help="The service that misbehaves.")],
    abort: Annotated[int | None, typer.Option(help="Answer with this HTTP status.")] = None,
    delay: Annotated[str | None, typer.Option(help="Wait this long first, e.g. 300ms.")] = None,
    percent: Annotated[float, typer.Option(help="Of the requests that match.")] = 100.0,
    caller: Annotated[str | None, typer.Option("--from", help="Only requests of this service.")] = None,
    path: Annotated[str | None, typer.Option(help="Only this path; a * at its end matches the rest.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="Only with this header: name=value; repeatable.")] = None,
    lifetime: Annotated[str | None, typer.Option("--for", help="Remove it by itself after this long.")] = None,
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """Inject a fault at a service and return when its sidecars run it."""
    headers = tuple(_pair(one) for one in header or ())
    request = FaultRequest(
        target,
        abort,
        seconds(delay, "--delay") if delay else None,
        percent,
        caller,
        path,
        headers,
        seconds(lifetime, "--for") if lifetime else None,
    )
    identity, applied = asyncio.run(Mesh.of(compose_file).inject(request))
    if form is not Format.table:
        output.data({"id": identity, "seconds": applied.seconds, "sidecars": applied.sidecars}, form)
    else:
        typer.echo(identity)
        output.note(f"in force at {len(applied.of('acked'))} sidecars after {applied.seconds * 1000:.0f} ms")
    refused = applied.of("nacked")
    if refused:
        raise DevmeshError(f"refused by {refused[0]['workload']}: {refused[0]['error']}", f"devmesh fault clear {identity}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--header {text!r} is not name=value", "--header x-user=alice")
    return name.lower(), value


@app.command("list")
def list_(compose_file: ComposeFile = None, form: Output = Format.table) -> None:
    """Faults in force and how often each has fired."""
    faults = asyncio.run(Mesh.of(compose_file).faults())
    if form is not Format.table:
        output.data({"faults": faults}, form)
        return
    rows = [(one["id"], one["target"], _what(one), _scope(one), str(one["hits"])) for one in faults]
    output.table(("ID", "TARGET", "WHAT", "WHICH", "HITS"), rows)


def _what(one: dict[str, object]) -> str:
    parts = []
    abort, delay = one.get("abort"), one.get("delay")
    if isinstance(delay, dict):
        parts.append(f"delay {delay['fixedDelay']:g}s {delay['percentage']:g}%")
    if isinstance(abort, dict):
        parts.append(f"abort {abort['httpStatus']} {abort['percentage']:g}%")
    return ", ".join(parts)


def _scope(one: dict[str, object]) -> str:
    headers = one.get("headers")
    parts = [f"from {one['from']}" if one.get("from") else "", str(one.get("path") or "")]
    parts += [f"{name}={value}" for name, value in headers.items()] if isinstance(headers, dict) else []
    return " ".join(filter(None, parts)) or "all"


@app.command()
def clear(
    identities: Annotated[list[str] | None, typer.Argument(help="Ids or targets; default all.")] = None,
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """Remove injected faults, nothing else; says how often each one fired."""
    gone, applied = asyncio.run(Mesh.of(compose_file).clear_faults(identities or []))
    if form is not Format.table:
        output.data({"faults": gone}, form)
        return
    for one in gone:
        typer.echo(f"{one['id']}: cleared, fired {one['hits']} times")
    output.note(f"{len(applied.of('acked'))} sidecars acknowledged" if applied else "no faults in force")
