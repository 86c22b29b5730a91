"""status, wait: how the workloads are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import typer

from devmesh import __version__
from devmesh.cli import fault, output
from devmesh.cli.options import ComposeFile, Output, Timeout, seconds
from devmesh.cli.output import Format
from devmesh.cli.progress import Progress
from devmesh.mesh import Mesh
from devmesh.runtimes.waiting import said


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command("ps", hidden=True)(status)
    app.command()(wait)


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
            certificate(one["certificate"], datetime.now().astimezone()), str(one["restarts"]),
        )
        for one in answer["workloads"]
    ]  # fmt: skip
    output.table(("WORKLOAD", "SERVICE", "VERSION", "PORT", "STATE", "CERT", "RESTARTS"), rows)
    _say_ended(answer["workloads"])
    _say_apps(answer["workloads"])
    in_force = [one for one in answer["faults"] if one["state"] != "done"]
    if in_force:
        output.note("\nfaults in force (devmesh fault clear):")
        for one in in_force:
            output.note(f"  {one['id']}: {fault.what(one)} at {fault.target(one)}")
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
    output.urls(answer["urls"])
    if profile := answer["settings"].get("profile"):
        output.note(f"\nprofile {profile}; devmesh profile dump --running shows every setting")


def certificate(one: Mapping[str, Any], now: datetime) -> str:
    """When it ends, in the time zone of `now`: the hour while that is within a day, else the date."""
    if not one["expires"]:
        return "-"
    ends = datetime.fromisoformat(one["expires"]).astimezone(now.tzinfo)
    if one.get("problem"):
        return "ended"
    return f"{ends:%H:%M}" if ends - now < timedelta(days=1) else f"{ends:%Y-%m-%d}"


def _say_ended(workloads: Iterable[Mapping[str, Any]]) -> None:
    """A sidecar whose certificate has ended keeps its connections, and nobody takes a new one."""
    ended: dict[str, list[str]] = {}
    for one in workloads:
        if why := one["certificate"].get("problem"):
            ended.setdefault(why, []).append(one["name"])
    for why, names in ended.items():
        output.note(
            f"\ncertificates that have ended: {', '.join(names)}\n  {why}\n"
            "  new connections between sidecars fail until there are new ones. hint: devmesh logs ca"
        )


def _say_apps(workloads: Iterable[Mapping[str, Any]]) -> None:
    """What healthchecks that fail said last, and why an app has not been started."""
    for one in workloads:
        health = one["healthcheck"]
        if health and health["failures"]:
            output.note(f"\n{one['name']}'s healthcheck failed {health['failures']} times{said(health['output'])}")
        if one["waits"]:
            output.note(f"\n{one['name']} is not started: {one['waits']}")


def _ports(one: dict[str, Any]) -> str:
    return ", ".join(f"{port['port']} {port['protocol']}" for port in one["ports"]) or "-"


def _condition(one: dict[str, Any]) -> str:
    """What is not as it should be, else "ready", or "done" of a job that has ended well."""
    if one["held"]:
        return "paused"
    if one["waits"]:
        return "not started"
    if one["stopped"]:
        return "stopped"
    wrong = [
        name for name, is_so in (("not ready", one["ready"]), ("unhealthy", one["healthy"]), ("not in sync", one["synced"])) if not is_so
    ]
    health = one["healthcheck"]
    if health and health["status"] != "healthy" and one["healthy"]:
        wrong[0] = f"healthcheck {health['status']}"  # why it is not ready
    elif one["exit_status"] is not None and not one["ready"]:
        wrong[0] = f"ended with status {one['exit_status']}"
    return ", ".join(wrong) or ("done" if one["done"] else "ready")


def wait(compose_file: ComposeFile = None, timeout: Timeout = "30s") -> None:
    """Return when every process is ready, every sidecar runs the newest configuration and every app takes connections."""
    limit = seconds(timeout, "--timeout")
    started = time.monotonic()
    with Progress() as progress:
        asyncio.run(Mesh.of(compose_file).wait(limit, progress.tell))
    output.note(f"  {'ready':<26} {time.monotonic() - started:6.2f} s")
