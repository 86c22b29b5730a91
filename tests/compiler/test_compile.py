"""One proxy's whole snapshot."""

import pytest

from devmesh.compiler import compile_proxy
from devmesh.errors import DevmeshError
from tests.compiler.worlds import world


@pytest.mark.parametrize("workload", ["web-v1", "api-v1", "gate-v1"])
def test_every_reference_of_a_snapshot_resolves(workload):
    assert compile_proxy(world(), workload).snapshot.consistent() == []


def test_the_same_world_gives_the_same_version():
    assert compile_proxy(world(), "web-v1").snapshot.version == compile_proxy(world(), "web-v1").snapshot.version


def test_an_unknown_workload_is_told_the_known_ones():
    with pytest.raises(DevmeshError, match="no workload 'nobody'"):
        compile_proxy(world(), "nobody")
