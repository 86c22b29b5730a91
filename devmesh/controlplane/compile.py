"""The compiler as the control plane calls it: one world, every workload, and no mistake in one that stops the others."""

import logging

from devmesh.compiler import Compiled, MeshSettings, World, compile_proxy
from devmesh.config.model import Diagnostic
from devmesh.controlplane.push import TYPES, ProxySnapshot
from devmesh.controlplane.state import CompileInput, CompileOutput

log = logging.getLogger(__name__)
INTERNAL = "DM9999"


def compile_all(wanted: CompileInput) -> CompileOutput:
    """Compile every workload of the topology; safe to run in a thread."""
    settings = MeshSettings.from_json(wanted.settings)
    world = World.from_topology(wanted.topology, wanted.resources, settings, wanted.healthy)
    snapshots: dict[str, ProxySnapshot] = {}
    diagnostics: dict[Diagnostic, None] = {}
    for workload in wanted.topology.workloads:
        try:
            compiled = compile_proxy(world, workload.name)
        except Exception as error:  # one workload's failure is reported, and leaves it what it has
            log.exception("compiling %s", workload.name)
            message = f"{workload.name} keeps its configuration: the compiler failed ({type(error).__name__}: {error})"
            diagnostics[Diagnostic("error", INTERNAL, None, message, "devmesh bug-report")] = None
            continue
        snapshots[workload.name] = snapshot_of(compiled)
        diagnostics.update(dict.fromkeys(compiled.diagnostics))
    return CompileOutput(snapshots, tuple(diagnostics))


def snapshot_of(compiled: Compiled) -> ProxySnapshot:
    snapshot = compiled.snapshot
    return ProxySnapshot(snapshot.version, {kind: tuple(getattr(snapshot, kind)) for kind in TYPES})
