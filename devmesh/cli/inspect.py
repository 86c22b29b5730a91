"""proxy-status, proxy-config, curl, exec, shell, dashboard."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from devmesh.cli import output
from devmesh.cli.options import Compose, ComposeFile, Output
from devmesh.cli.output import Format
from devmesh.cli.sources import config_of, source_of
from devmesh.config.addon_names import ADDONS
from devmesh.errors import DevmeshError, UsageError
from devmesh.mesh import Mesh

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
# What stands behind the service belongs to the command, options too.
COMMAND_LINE = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
KINDS = ("listeners", "routes", "clusters", "endpoints", "secrets")


def register(app: typer.Typer) -> None:
    app.command("proxy-status")(proxy_status)
    app.command("proxy-config")(proxy_config)
    app.command("curl", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(curl)
    app.command("exec", context_settings=COMMAND_LINE)(execute)
    app.command("shell")(shell)
    app.command("dashboard")(dashboard)


def proxy_status(compose_file: ComposeFile = None, form: Output = Format.table) -> None:
    """What each sidecar was sent and has acknowledged."""
    answer = asyncio.run(Mesh.of(compose_file).control("/v1/proxies"))
    if form is not Format.table:
        output.data(answer, form)
        return
    rows = [
        (
            one["workload"],
            output.mark(one["connected"]),
            "SYNCED" if one["synced"] else "NOT SYNCED",
            one["version_acked"] or "-",
            lag(one),
        )
        for one in answer["proxies"]
    ]
    output.table(("WORKLOAD", "CONNECTED", "STATE", "VERSION", "ERROR"), rows)


def lag(one: Mapping[str, Any]) -> str:
    """Why a sidecar does not run what it should: its own words, or what it has not said."""
    if one["error"] or (one["synced"] and one["connected"]):
        return one["error"] or ""
    if not one["connected"]:
        seen = f"silent since {datetime.fromisoformat(one['last_seen']).astimezone():%H:%M:%S}" if one["last_seen"] else "never heard of"
        return f"{seen}: devmesh logs {one['workload']}-sidecar"
    return f"was sent {one['version_sent']}, has not answered yet"


def _workload(mesh: Mesh, name: str) -> str:
    """A workload, or a service's first one, which is then named where there are several."""
    workloads: dict[str, Any] = mesh.state()["workloads"]
    if name in workloads:
        return name
    found = [workload for workload, one in workloads.items() if one["service"] == name]
    if not found:
        raise DevmeshError(f"no workload or service {name!r}", f"one of: {', '.join(workloads)}")
    if len(found) > 1:
        output.note(f"{name} has {len(found)} workloads, this is {found[0]}; the others: {', '.join(found[1:])}")
    return found[0]


def proxy_config(kind: str, service: str, compose_file: ComposeFile = None, form: Output = Format.table) -> None:
    """What a sidecar runs: listeners, routes, clusters, endpoints or secrets."""
    if kind not in KINDS and f"{kind}s" not in KINDS:
        raise DevmeshError(f"{kind!r} is none of {', '.join(KINDS)}", f"devmesh proxy-config routes {service}")
    kind = kind if kind in KINDS else f"{kind}s"
    mesh = Mesh.of(compose_file)
    name = _workload(mesh, service)
    if kind == "secrets":
        output.data(asyncio.run(mesh.certificates(name)), Format.json if form is Format.table else form)
        return
    found = asyncio.run(mesh.control(f"/v1/proxies/{name}/config"))[kind]
    if form is not Format.table:
        output.data({kind: found}, form)
        return
    workloads = {one["ip"]: workload for workload, one in mesh.state()["workloads"].items() if "ip" in one}
    tables: dict[str, Callable[[], Rows]] = {
        "listeners": lambda: _listeners(found),
        "routes": lambda: routes_table(found),
        "clusters": lambda: _clusters(found),
        "endpoints": lambda: endpoints_table(found, workloads),
    }
    output.table(*tables[kind](), wide=True)


def _listeners(found: list[dict[str, Any]]) -> Rows:
    rows: list[tuple[str, ...]] = []
    for one in found:
        address = one["address"]["socket_address"]
        rows.append(
            (
                one["name"],
                address["address"],
                str(address["port_value"]),
                one.get("traffic_direction", ""),
                str(len(one.get("filter_chains", ()))),
            )
        )
    return ("NAME", "ADDRESS", "PORT", "DIRECTION", "CHAINS"), rows


def routes_table(found: list[dict[str, Any]]) -> Rows:
    """Each route with whatever a request must have for it, and the line that says so."""
    rows: list[tuple[str, ...]] = []
    for table in found:
        for host in table["virtual_hosts"]:
            for route in host.get("routes", ()):
                action = route.get("route", {})
                clusters = action.get("cluster") or ",".join(
                    f"{c['name']}={c['weight']}" for c in action.get("weighted_clusters", {}).get("clusters", ())
                )
                rows.append(
                    (
                        table["name"],
                        host["domains"][0],
                        _match(route["match"]),
                        clusters or next(k for k in ("redirect", "direct_response") if k in route),
                        config_of(route).rpartition("/")[2],
                        source_of(route),
                    )
                )
    return ("TABLE", "HOST", "MATCH", "TO", "VIRTUAL SERVICE", "SOURCE"), rows


def _match(match: dict[str, Any]) -> str:
    path = match.get("path") or match.get("safe_regex", {}).get("regex") or match.get("prefix", "") + "*"
    more = [_condition(one, "string_match") for one in match.get("headers", ())]
    more += [f"?{_condition(one, 'string_match')}" for one in match.get("query_parameters", ())]
    return " ".join([path, *more])


def _condition(one: dict[str, Any], key: str) -> str:
    """`name=value`, `name=value*` of a prefix, `name~regex`, `name` of whatever is there; `!` before what must not be."""
    value = one.get(key, {})
    text = "".join(
        f"={value[kind]}{'*' * (kind == 'prefix')}" if kind != "safe_regex" else f"~{value[kind]['regex']}"
        for kind in ("exact", "prefix", "safe_regex") if kind in value
    )  # fmt: skip
    return f"{'!' * bool(one.get('invert_match'))}{one['name']}{text}"


def _clusters(found: list[dict[str, Any]]) -> Rows:
    return ("NAME", "TYPE", "POLICY", "SOURCE"), [
        (one["name"], one.get("type", ""), one.get("lb_policy", ""), source_of(one)) for one in found
    ]


def endpoints_table(found: list[dict[str, Any]], workloads: Mapping[str, str]) -> Rows:
    """`workloads` by address: those of this folder's mesh."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        for group in one.get("endpoints", ()):
            for host in group["lb_endpoints"]:
                address = host["endpoint"]["address"]["socket_address"]
                endpoint = f"{address['address']}:{address['port_value']}"
                rows.append((endpoint, workloads.get(address["address"], ""), host["health_status"], one["cluster_name"]))
    return ("ENDPOINT", "WORKLOAD", "STATUS", "CLUSTER"), rows


def curl(context: typer.Context, from_service: str, url: str, compose_file: Compose = None) -> None:
    """A request as that service would send it: through its sidecar, with its identity. Further flags are curl's."""
    mesh = Mesh.of(compose_file)
    mesh.runtime.curl(_workload(mesh, from_service), [*context.args, url])


def execute(context: typer.Context, service: str, compose_file: Compose = None) -> None:
    """Run a command in a service's pod: devmesh exec reviews-v1 -- tcpdump -i lo."""
    command = context.args[1:] if context.args[:1] == ["--"] else context.args
    if not command:
        raise UsageError("devmesh exec SERVICE COMMAND: the command is missing", f"devmesh exec {service} env")
    _enter(service, compose_file, command)


def shell(service: str, compose_file: Compose = None) -> None:
    """A shell where a service's app runs; what it sends goes through the service's sidecar."""
    _enter(service, compose_file, None)


def dashboard(page: str, compose_file: Compose = None) -> None:
    """Open a page of the mesh in the browser, and print where it is: jaeger, consul, control, or an addon's: prometheus, grafana."""
    urls: dict[str, str] = Mesh.of(compose_file).mesh_urls()
    if page in ADDONS and page not in urls:
        raise DevmeshError(f"this mesh has no {page}", f"devmesh down, then devmesh up --set addonComponents.{page}.enabled=true")
    if page not in urls:
        raise DevmeshError(f"no page {page!r}", f"devmesh dashboard {' | '.join(sorted(urls))}")
    typer.echo(urls[page])
    webbrowser.open(urls[page])


def _enter(service: str, compose_file: Path | None, argv: list[str] | None) -> None:
    mesh = Mesh.of(compose_file)
    mesh.runtime.execute(_workload(mesh, service), argv)
