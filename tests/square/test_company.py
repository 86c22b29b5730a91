"""Proxies of one world share what they have in common (compiler/world.py, per_world): none changes another's."""

import pytest

from devmesh.compiler import World, compile_proxy
from devmesh.config.loader import load_text
from devmesh.xds.snapshot import TYPES, Snapshot
from tests.square.compilers import CASES, topology, topology_file


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_a_proxy_gets_does_not_depend_on_who_was_compiled_before_it(case):
    found = topology(topology_file(case))
    resources = load_text(case.read_text(), case.name).resources
    names = [one.name for one in found.workloads]

    def compiled(order):
        world = World.from_topology(found, resources)
        snapshots = {name: compile_proxy(world, name).snapshot for name in order}
        for name, snapshot in snapshots.items():
            assert Snapshot.of(*(snapshot.resources[kind] for kind in TYPES)).version == snapshot.version, f"{name}'s was written to later"
        return {name: snapshot.version for name, snapshot in snapshots.items()}

    assert compiled(names) == compiled(reversed(names))
