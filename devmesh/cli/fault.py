"""fault inject, list, clear."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from devmesh.cli import output
from devmesh.cli.options import ComposeFile, Output, seconds, service_names
from devmesh.cli.output import Format
from devmesh.config.injection import FaultRequest, check_usage
from devmesh.errors import DevmeshError, UsageError
from devmesh.mesh import Mesh

app = typer.Typer(help="Break things on purpose, and heal them.", no_args_is_help=True)


def fault_names() -> list[str]:
    try:
        return [one.key.name for one in asyncio.run(Mesh.of().resources()) if one.owner == "fault"]
    except DevmeshError:
        return []


@app.command()
def inject(
    target: Annotated[
        str | None,
        typer.Argument(help="The service that misbehaves; with --pause and --kill a workload, too.", autocompletion=service_names),
    ] = None,
    abort: Annotated[int | None, typer.Option(help="Answer with this HTTP status.")] = None,
    delay: Annotated[str | None, typer.Option(help="Wait this long first, e.g. 300ms.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Stop its apps where they are, until it is cleared.")] = False,
    kill: Annotated[bool, typer.Option("--kill", help="Kill its apps, once; what restarts them does.")] = False,
    partition: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Silence between two services or workloads, both ways. No TARGET.", autocompletion=service_names),
    ] = None,
    percent: Annotated[float | None, typer.Option(help="Of the requests that match; default 100.")] = None,
    caller: Annotated[str | None, typer.Option("--from", help="Only requests of this service.", autocompletion=service_names)] = None,
    path: Annotated[str | None, typer.Option(help="Only this path; a * at its end matches the rest.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="Only with this header: name=value; repeatable.")] = None,
    lifetime: Annotated[str | None, typer.Option("--for", help="Remove it by itself after this long.")] = None,
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """Inject a fault and return when it is in force."""
    if target is not None and partition is not None:
        raise UsageError(
            f"--partition names both of its sides: {target!r} is one too many",
            f"devmesh fault inject --partition {' '.join(partition)}",
        )
    if target is None and partition is None:
        raise UsageError("devmesh fault inject TARGET: the target is missing", "devmesh status lists the services")
    first, second = partition or (target or "", None)
    request = FaultRequest(
        first,
        abort,
        seconds(delay, "--delay") if delay else None,
        percent,
        caller,
        path,
        tuple(_pair(one) for one in header or ()),
        seconds(lifetime, "--for") if lifetime else None,
        pause=pause,
        kill=kill,
        partition=second,
    )
    check_usage(request)
    identity, applied = asyncio.run(Mesh.of(compose_file).inject(request))
    if form is not Format.table:
        output.data({"id": identity, "seconds": applied.seconds, "sidecars": applied.sidecars}, form)
    else:
        typer.echo(identity)
        output.note(_done(request, len(applied.of("acked")), applied.seconds))
    refused = applied.of("nacked")
    if refused:
        raise DevmeshError(f"refused by {refused[0]['workload']}: {refused[0]['error']}", f"devmesh fault clear {identity}")


def _done(request: FaultRequest, sidecars: int, took: float) -> str:
    if request.kill:
        return f"{request.target} is killed"
    if request.pause:
        return f"{request.target} stands still"
    return f"in force at {sidecars} sidecars after {took * 1000:.0f} ms"


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
    rows = [(one["id"], target(one), what(one), _scope(one), _state(one), _hits(one)) for one in faults]
    output.table(("ID", "TARGET", "WHAT", "WHICH", "STATE", "HITS"), rows)


def target(one: Mapping[str, Any]) -> str:
    return f"{one['target']} | {one['partition']}" if one.get("partition") else str(one["target"])


def what(one: Mapping[str, Any]) -> str:
    parts = [word for word in ("partition", "pause", "kill") if one.get(word)]
    abort, delay = one.get("abort"), one.get("delay")
    if isinstance(delay, dict):
        parts.append(f"delay {delay['fixedDelay']:g}s {delay['percentage']:g}%")
    if isinstance(abort, dict):
        parts.append(f"abort {abort['httpStatus']} {abort['percentage']:g}%")
    return ", ".join(parts)


def _hits(one: Mapping[str, Any]) -> str:
    return "unknown" if one["hits"] is None else str(one["hits"])


def _fired(one: Mapping[str, Any]) -> str:
    if one["hits"] is None:
        return f"how often it fired is unknown: no answer from the sidecar of {', '.join(one['silent'])}"
    return f"fired {one['hits']} time{'s' * (one['hits'] != 1)}"


def _scope(one: Mapping[str, Any]) -> str:
    headers = one.get("headers")
    parts = [f"from {one['from']}" if one.get("from") else "", str(one.get("path") or "")]
    parts += [f"{name}={value}" for name, value in headers.items()] if isinstance(headers, dict) else []
    return " ".join(filter(None, parts)) or "all"


def _state(one: Mapping[str, Any]) -> str:
    left = one["until"] - time.time_ns() / 1e9 if one.get("until") else None
    return str(one["state"]) if left is None else f"{one['state']}, {max(0.0, left):.0f} s left"


@app.command()
def clear(
    identities: Annotated[list[str] | None, typer.Argument(help="Ids or targets; default all.", autocompletion=fault_names)] = None,
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """Remove injected faults, nothing else; says how often each one fired."""
    gone, applied = asyncio.run(Mesh.of(compose_file).clear_faults(identities or []))
    if form is not Format.table:
        output.data({"faults": gone}, form)
        return
    for one in gone:
        typer.echo(f"{one['id']}: cleared, {_fired(one)}")
    if applied is None:
        output.note("no faults in force")
    elif applied.sidecars:
        output.note(f"{len(applied.of('acked'))} sidecars acknowledged")
