"""apply, get, delete, analyze, compile."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from devmesh.cli import output
from devmesh.cli.options import Compose, ComposeFile, Output, Timeout, say, seconds
from devmesh.cli.output import Format
from devmesh.config.analysis import analyze as analyse
from devmesh.config.analysis import merge
from devmesh.config.loader import Loaded, load_paths, load_text
from devmesh.config.model import COMPILER_FAILED, Diagnostic
from devmesh.config.topology import Gateways, load_topology
from devmesh.errors import DevmeshError, InternalError
from devmesh.mesh import Applied, Mesh
from devmesh.registry.resources import in_force
from devmesh.running import find_compose_file
from devmesh.runtimes.docker.compose import merged

ANY_GATEWAYS = Gateways(egress=True)  # whether a mesh has one its settings say

Sources = Annotated[list[str], typer.Option("-f", "--filename", help="File, folder, URL or - for standard input; repeatable.")]


def register(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(get)
    app.command()(delete)
    app.command()(analyze)
    app.command("compile")(compile_)


def load(sources: Sequence[str]) -> Loaded:
    """Everything in files, folders, URLs and standard input (`-:12`, `URL:12` in messages)."""
    parts: list[Loaded] = []
    for source in sources:
        if source == "-":
            parts.append(load_text(sys.stdin.read(), "-"))
        elif source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=10) as answer:  # noqa: S310 - http and https only
                parts.append(load_text(answer.read().decode(), source))
        else:
            parts.append(load_paths([source]))
    return Loaded(tuple(r for part in parts for r in part.resources), tuple(d for part in parts for d in part.diagnostics))


def refuse_errors(diagnostics: Sequence[Diagnostic], done: str) -> None:
    errors = [one for one in diagnostics if one.severity == "error"]
    if errors:
        raise DevmeshError(
            f"{len(errors)} error{'s' * (len(errors) > 1)}; nothing was {done}", "mend what is named above, then the same command again"
        )


def apply(filename: Sources, compose_file: Compose = None, timeout: Timeout = "10s", form: Output = Format.table) -> None:
    """Apply Istio resources and return when every affected sidecar runs them."""
    mesh = Mesh.of(compose_file)
    limit = seconds(timeout, "--timeout")
    loaded = load(filename)
    say(loaded.diagnostics)
    refuse_errors(loaded.diagnostics, "applied")
    if not loaded.resources:
        raise DevmeshError(f"no resources in {', '.join(filename)}", "name files or folders that hold some: devmesh apply -f mesh/")
    if not mesh.is_up():
        mesh.state()
    found = asyncio.run(mesh.check(loaded.resources))
    say([one for one in found if one not in loaded.diagnostics])
    refuse_errors(found, "applied")
    applied = asyncio.run(mesh.apply(loaded.resources, limit))
    _report([f"{one.key.kind} {one.key.name} applied" for one in loaded.resources], applied, form, limit)


def _report(lines: Sequence[str], applied: Applied, form: Format, limit: float) -> None:
    if form is not Format.table:
        output.data(
            {
                "generation": applied.generation,
                "seconds": applied.seconds,
                "sidecars": applied.sidecars,
                "diagnostics": applied.diagnostics,
            },
            form,
        )
    else:
        if not applied.of("nacked"):
            for line in lines:
                typer.echo(line)
        output.note(f"{len(applied.of('acked'))} sidecars acknowledged in {applied.seconds * 1000:.0f} ms")
    for one in applied.of("disconnected"):
        output.note(f"  {one['workload']} is not connected, will get it on return")
    failed = [one["message"] for one in applied.diagnostics if one["code"] == COMPILER_FAILED]
    if failed:
        raise InternalError("\n".join(failed), "devmesh logs control")
    refused = applied.of("nacked")
    if refused:
        words = "\n".join(f"  {one['workload']}: {one['error']}" for one in refused)
        raise DevmeshError(
            f"{len(refused)} sidecars refused this; their old configuration is in force:\n{words}",
            "devmesh delete it, or apply a mended one",
        )
    silent = applied.of("pending")
    if silent:
        raise DevmeshError(f"no answer within {limit:g} s from {', '.join(one['workload'] for one in silent)}", "devmesh proxy-status")


def get(
    kind: Annotated[str | None, typer.Argument(help="A kind, e.g. virtualservice; default all.")] = None,
    name: Annotated[str | None, typer.Argument()] = None,
    compose_file: Compose = None,
    form: Output = Format.table,
) -> None:
    """Resources in force, with owner and place."""
    found = [
        one for one in in_force(asyncio.run(Mesh.of(compose_file).resources()))
        if (kind is None or _same_kind(kind, one.key.kind)) and (name is None or one.key.name == name)
    ]  # fmt: skip
    if form is not Format.table:
        output.data({"resources": [{**redacted(one.document), "owner": one.owner, "source": {"file": one.file}} for one in found]}, form)
        return
    rows = [(one.key.kind, one.key.namespace, one.key.name, one.owner, f"{one.file}:{min(one.lines.values(), default=0)}") for one in found]
    output.table(("KIND", "NAMESPACE", "NAME", "OWNER", "SOURCE"), rows)


def redacted(document: Mapping[str, Any]) -> dict[str, Any]:
    """A Secret's values are not shown, not even as the registry holds them (encrypted)."""
    out = dict(document)
    if (out["apiVersion"], out["kind"]) == ("v1", "Secret"):
        out |= {part: dict.fromkeys(out[part], REDACTED) for part in ("data", "stringData") if isinstance(out.get(part), dict)}
    return out


REDACTED = "[redacted]"
SHORT = {"vs": "virtualservice", "dr": "destinationrule", "gw": "gateway", "pa": "peerauthentication"}


def _same_kind(given: str, kind: str) -> bool:
    lowered = SHORT.get(given.lower(), given.lower())
    return lowered in (kind.lower(), f"{kind.lower()}s") or (lowered == "peerauthentications" and kind == "PeerAuthentication")


def delete(
    kind: Annotated[str | None, typer.Argument()] = None,
    name: Annotated[str | None, typer.Argument()] = None,
    filename: Annotated[list[str] | None, typer.Option("-f", "--filename", help="Delete what these files hold.")] = None,
    namespace: Annotated[str, typer.Option("-n", "--namespace")] = "default",
    compose_file: Compose = None,
    timeout: Timeout = "10s",
    form: Output = Format.table,
) -> None:
    """Delete resources and return when every affected sidecar has dropped them."""
    mesh = Mesh.of(compose_file)
    present = asyncio.run(mesh.resources())
    if filename:
        wanted = {resource.key for resource in load(filename).resources}
        gone = [one for one in present if one.key in wanted]
        missing = [str(key) for key in wanted - {one.key for one in gone}]
    elif kind and name:
        gone = [one for one in present if _same_kind(kind, one.key.kind) and one.key.name == name and one.key.namespace == namespace]
        missing = [] if gone else [f"{kind} {namespace}/{name}"]
    else:
        raise DevmeshError("say what to delete", "devmesh delete virtualservice reviews, or devmesh delete -f FILE")
    if not gone:
        raise DevmeshError(f"not there: {', '.join(missing)}", "devmesh get")
    limit = seconds(timeout, "--timeout")
    applied = asyncio.run(mesh.delete([(one.owner, one.key) for one in gone], limit))
    _report([f"{one.key.kind} {one.key.name} deleted" for one in gone], applied, form, limit)


def analyze(
    filename: Annotated[
        list[str] | None,
        typer.Option("-f", "--filename", help="Files or folders; default: mesh/ beside the compose file, and x-devmesh.resources."),
    ] = None,
    compose_file: Compose = None,
    fail_on: Annotated[str, typer.Option(help="error or warning.")] = "error",
    form: Output = Format.table,
) -> None:
    """Istio's analysis messages with file:line:column; needs no running mesh."""
    compose = find_compose_file(compose_file, Path.cwd())
    topology = load_topology(compose, merged=merged(compose), gateways=ANY_GATEWAYS)
    loaded = load(filename or [*map(str, topology.resource_paths)] or [str(compose.parent / "mesh")])
    found = merge([loaded.diagnostics, analyse(loaded.resources, topology)])
    if form is not Format.table:
        output.data({"diagnostics": [one.to_json() for one in found]}, form)
    else:
        say(found)
        output.note(f"{len(loaded.resources)} resources, {len(found)} messages")
    if any(one.severity in {"error", fail_on} for one in found):
        raise typer.Exit(1)


def compile_(
    workload: str,
    file: ComposeFile = None,
    resource: Annotated[
        list[str] | None,
        typer.Option("-r", "--resources", help="Files or folders; default: mesh/ beside the compose file, and x-devmesh.resources."),
    ] = None,
) -> None:
    """The xDS a workload would get, as proto-JSON, with no mesh running."""
    from devmesh.compiler import World, compile_proxy  # noqa: PLC0415 - only here
    from devmesh.xds.schema import invalid  # noqa: PLC0415 - protobuf, only here

    compose = find_compose_file(file, Path.cwd())
    topology = load_topology(compose, merged=merged(compose), gateways=ANY_GATEWAYS)
    loaded = load(resource or [*map(str, topology.resource_paths)])
    say(loaded.diagnostics)
    refuse_errors(loaded.diagnostics, "compiled")
    compiled = compile_proxy(World.from_topology(topology, loaded.resources), workload)
    say(compiled.diagnostics)
    wrong = invalid(compiled.snapshot)
    if wrong:
        raise InternalError(
            "\n".join(map(str, wrong)), f"this is a mistake of devmesh: report it with the output of `devmesh compile {workload}`"
        )
    answer: dict[str, Any] = compiled.snapshot.to_json()
    output.data({kind: answer[kind] for kind in ("listeners", "routes", "clusters", "endpoints")}, Format.json)
