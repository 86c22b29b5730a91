"""traces list, show."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from devmesh.cli import output
from devmesh.cli.options import ComposeFile, Output
from devmesh.cli.output import Format
from devmesh.collector.client import get_trace, list_traces
from devmesh.collector.spans import Span
from devmesh.mesh import Mesh

app = typer.Typer(help="Look at traces without leaving the terminal.", no_args_is_help=True)


def _url(mesh: Mesh) -> str:
    return f"http://127.0.0.1:{mesh.state()['ports']['query']}"


@app.command("list")
def list_(
    service: Annotated[str | None, typer.Option(help="Only traces that this service took part in.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only failed ones.")] = False,
    limit: Annotated[int, typer.Option()] = 20,
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """The newest traces."""
    found = asyncio.run(list_traces(_url(Mesh.of(compose_file)), service, limit, errors))
    if form is not Format.table:
        listed = [
            {
                "trace_id": t.trace_id,
                "start": t.start.isoformat(),
                "duration": t.duration,
                "services": list(t.services),
                "spans": t.spans,
                "error": t.error,
            }
            for t in found
        ]
        output.data({"traces": listed}, form)
        return
    rows = [
        (
            t.trace_id[:16],
            t.start.astimezone().strftime("%H:%M:%S"),
            f"{t.duration * 1000:.1f} ms",
            str(t.spans),
            "ERROR" if t.error else "",
            t.root,
        )
        for t in found
    ]
    output.table(("TRACE", "START", "DURATION", "SPANS", "", "ROOT"), rows)


@app.command()
def show(trace_id: str, compose_file: ComposeFile = None, form: Output = Format.table) -> None:
    """One trace as a tree."""
    spans = asyncio.run(_spans(_url(Mesh.of(compose_file)), trace_id))
    if form is not Format.table:
        output.data({"spans": [_json(span) for span in spans]}, form)
        return
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if span.parent_id not in ids]
    for root in sorted(roots, key=lambda span: span.start):
        _print(root, spans, 0)


async def _spans(url: str, trace_id: str) -> list[Span]:
    if len(trace_id) < 32:
        for one in await list_traces(url, None, 200, False):
            if one.trace_id.startswith(trace_id):
                trace_id = one.trace_id
                break
    return list(await get_trace(url, trace_id))


def _json(span: Span) -> dict[str, object]:
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "service": span.service,
        "kind": span.kind,
        "start": span.start.isoformat(),
        "duration": span.duration,
        "error": span.error,
        "attributes": dict(span.attributes),
    }


def _print(span: Span, spans: list[Span], depth: int) -> None:
    status = span.attributes.get("http.response.status_code", "")
    fault = f" fault {span.attributes['devmesh.fault']}" if "devmesh.fault" in span.attributes else ""
    typer.echo(f"{'  ' * depth}{span.service}: {span.name} {status} {span.duration * 1000:.1f} ms{' ERROR' if span.error else ''}{fault}")
    for child in sorted((one for one in spans if one.parent_id == span.span_id), key=lambda one: one.start):
        _print(child, spans, depth + 1)
