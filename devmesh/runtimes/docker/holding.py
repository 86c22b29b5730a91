"""App containers that faults hold, by the engine's own pause; and the end that a fault gives one."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import IO

from devmesh.ca.files import write_private
from devmesh.registry.client import Registry
from devmesh.runtimes.docker.engine import Container, Engine
from devmesh.runtimes.docker.pods import ROLE_LABEL, WORKLOAD_LABEL
from devmesh.runtimes.faults import held_apps
from devmesh.runtimes.files import MeshFiles


def kill_app(engine: Engine, app: Container) -> None:
    """As if it had ended by itself: its restart policy is applied, which the engine leaves out for what is killed through it."""
    engine.kill(app.id)
    if app.restart_policy != "no":
        engine.start(app.id)


async def hold(registry: Registry, project: str, files: MeshFiles) -> list[str]:
    """Pause and unpause as the faults in the registry say; the workloads whose app is paused by one.

    The keeper and commands both do this: one at a time, so that the last to look has the last word.
    """
    with await asyncio.to_thread(_locked, files):
        wanted, known = await held_apps(registry), _remembered(files)
        if not wanted and not known:
            return []
        return await asyncio.to_thread(_bring_about, project, files, wanted, known)


def _locked(files: MeshFiles) -> IO[str]:
    file = (files.root / "holding.lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _remembered(files: MeshFiles) -> list[str]:
    """Whom faults had paused before: what a user has paused by hand is none of ours."""
    try:
        found: list[str] = json.loads((files.root / "held.json").read_text())
    except (OSError, ValueError):
        return []
    return found


def _bring_about(project: str, files: MeshFiles, wanted: Mapping[str, str], known: Collection[str]) -> list[str]:
    with closing(Engine.connect()) as engine:
        apps = [one for one in engine.containers(project) if one.labels.get(ROLE_LABEL) == "app"]
        held = carry_out(engine, apps, wanted, known)
    write_private(files.root / "held.json", json.dumps(held).encode(), durable=False)
    return held


def carry_out(engine: Engine, apps: Collection[Container], wanted: Mapping[str, str], known: Collection[str]) -> list[str]:
    """The workloads that are paused as wanted. A container that is still starting is left to it; the next look pauses it."""
    held = []
    for one in apps:
        name = one.labels[WORKLOAD_LABEL]
        if name in wanted and one.state == "running" and one.health != "starting":
            engine.pause(one.id)
        elif name not in wanted and name in known and one.state == "paused":
            engine.unpause(one.id)
        elif one.state != "paused":
            continue
        if name in wanted:
            held.append(name)
    return held
