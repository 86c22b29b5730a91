"""The compiler as the control plane calls it: one world, every workload, and no mistake in one that stops the others."""

import logging

from devmesh.compiler import MeshSettings, World, compile_proxy
from devmesh.config.model import COMPILER_FAILED, Diagnostic
from devmesh.controlplane.state import CompileInput, CompileOutput
from devmesh.xds.snapshot import Snapshot

log = logging.getLogger(__name__)


def compile_all(wanted: CompileInput) -> CompileOutput:
    """Compile every workload of the topology; safe to run in a thread."""
    settings = MeshSettings.from_json(wanted.settings)
    world = World.from_topology(wanted.topology, wanted.resources, settings, wanted.healthy)
    snapshots: dict[str, Snapshot] = {}
    diagnostics: dict[Diagnostic, None] = {}
    for workload in wanted.topology.workloads:
        snapshot, found = _compile(world, workload.name)
        diagnostics.update(dict.fromkeys(found))
        if snapshot is not None:
            snapshots[workload.name] = snapshot
    return CompileOutput(snapshots, tuple(diagnostics))


def _compile(world: World, name: str) -> tuple[Snapshot | None, tuple[Diagnostic, ...]]:
    try:
        compiled = compile_proxy(world, name)
    except Exception as error:  # whatever the compiler does wrong for one workload: it is told, and that one keeps what it has
        log.exception("compiling %s", name)
        return None, (_failed(name, f"{type(error).__name__}: {error}"),)
    missing = compiled.snapshot.consistent()
    if missing:
        return None, (*compiled.diagnostics, _failed(name, f"it refers to {', '.join(missing)}, which it did not make"))
    invalid = _invalid(compiled.snapshot)
    if invalid:
        return None, (*compiled.diagnostics, *(_failed(name, one) for one in invalid))
    return compiled.snapshot, compiled.diagnostics


def _invalid(snapshot: Snapshot) -> list[str]:
    """What the official descriptors say against it; nothing of it is then served."""
    from devmesh.xds.schema import invalid  # noqa: PLC0415 - protobuf, which the CLI's other commands and the sidecars do without

    return [str(error) for error in invalid(snapshot)]


def _failed(name: str, reason: str) -> Diagnostic:
    return Diagnostic(
        "error", COMPILER_FAILED, None, f"{name} keeps its configuration, the compiler failed: {reason}", "devmesh logs control"
    )
