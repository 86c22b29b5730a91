"""traces list, show."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from devmesh.cli import output
from devmesh.cli.options import ComposeFile, Output
from devmesh.cli.output import Format
from devmesh.cli.sources import DestinationRules
from devmesh.collector.client import find_request, get_trace, list_traces
from devmesh.collector.spans import Span
from devmesh.mesh import Mesh

# What Envoy's documentation says of them (access log, %RESPONSE_FLAGS%), for the HTTP ones.
FLAGS = {
    "UH": "no healthy upstream, nobody there takes connections (devmesh status, devmesh proxy-config endpoints)",
    "UF": "no connection upstream",
    "UO": "a circuit breaker is open: too many connections or requests",
    "NR": "no route is for it",
    "NC": "the cluster of its route does not exist",
    "URX": "all retries, or attempts to connect, are used up",
    "UT": "the route's timeout was over",
    "UC": "the connection upstream ended before the answer",
    "UR": "upstream reset it",
    "LR": "our side reset it",
    "DC": "the client left",
    "DT": "it, or its connection, took too long",
    "DPE": "the client's HTTP is malformed",
    "UPE": "the answer's HTTP is malformed",
    "SI": "it stood still too long",
    "DI": "a fault delayed it",
    "FI": "a fault answered it (devmesh fault list, or fault: of a VirtualService)",
}
OF_THE_CLUSTER = ("UH", "UO", "UF", "NC")
app = typer.Typer(help="Look at traces without leaving the terminal.", no_args_is_help=True)


def _url(mesh: Mesh) -> str:
    return f"http://127.0.0.1:{mesh.state()['ports']['query']}"


@app.command("list")
def list_(
    service: Annotated[str | None, typer.Option(help="Only traces that this service took part in.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only failed ones.")] = False,
    limit: Annotated[int, typer.Option()] = 20,
    own: Annotated[bool, typer.Option("--own", help="Also those of the mesh's own: control plane and CA.")] = False,
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """The newest traces."""
    found = asyncio.run(list_traces(_url(Mesh.of(compose_file)), service, limit, errors, own=own))
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
def show(
    trace_id: Annotated[str, typer.Argument(help="As `traces list` shows it, or the x-request-id of an answer or an access log.")],
    compose_file: ComposeFile = None,
    form: Output = Format.table,
) -> None:
    """One trace as a tree, with who decided and where that is written."""
    mesh = Mesh.of(compose_file)
    spans = asyncio.run(_spans(_url(mesh), trace_id))
    if form is not Format.table:
        output.data({"spans": [_json(span) for span in spans]}, form)
        return
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if span.parent_id not in ids]
    rules = asyncio.run(DestinationRules.of(mesh))
    for root in sorted(roots, key=lambda span: span.start):
        _print(root, spans, 0, rules)


async def _spans(url: str, trace_id: str) -> list[Span]:
    if "-" in trace_id:
        return await get_trace(url, await find_request(url, trace_id))
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


def why(span: Span, rules: DestinationRules) -> list[str]:
    """Who decided, and where that is written: the rule that routed it, and what each of Envoy's response flags means."""
    said = {key: str(value) for key, value in span.attributes.items()}
    config, cluster = said.get("istio.config", ""), said.get("upstream_cluster", "")
    lines = []
    if place := said.get("devmesh.source"):
        done = f"sent it to {cluster}" if "|" in cluster else "answered it"
        lines.append(f"VirtualService {config.rpartition('/')[2]} {done}: {place}")
    for flag in said.get("response_flags", "-").split(","):
        if flag in FLAGS:
            lines.append(f"{flag}: {FLAGS[flag]}")
            if flag in OF_THE_CLUSTER and (place := rules.place(cluster)):
                lines[-1] += f"; DestinationRule: {place}"
    return lines


def _print(span: Span, spans: list[Span], depth: int, rules: DestinationRules) -> None:
    status = span.attributes.get("http.response.status_code", "")
    fault = str(span.attributes.get("devmesh.fault", ""))
    fault = f" fault {fault}" if fault and not fault.startswith("/apis/") else ""  # a VirtualService's is told below
    typer.echo(f"{'  ' * depth}{span.service}: {span.name} {status} {span.duration * 1000:.1f} ms{' ERROR' if span.error else ''}{fault}")
    for line in why(span, rules):
        typer.echo(f"{'  ' * depth}  | {line}")
    for child in sorted((one for one in spans if one.parent_id == span.span_id), key=lambda one: one.start):
        _print(child, spans, depth + 1, rules)
