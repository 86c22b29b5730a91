"""One proxy's whole snapshot."""

import pytest

from devmesh.compiler import compile_proxy
from devmesh.errors import DevmeshError
from tests.compiler.worlds import virtual_service, world


@pytest.mark.parametrize("workload", ["web-v1", "api-v1", "gate-v1"])
def test_every_reference_of_a_snapshot_resolves(workload):
    assert compile_proxy(world(), workload).snapshot.consistent() == []


def test_the_same_world_gives_the_same_version():
    assert compile_proxy(world(), "web-v1").snapshot.version == compile_proxy(world(), "web-v1").snapshot.version


def test_an_unknown_workload_is_told_the_known_ones():
    with pytest.raises(DevmeshError, match="no workload 'nobody'"):
        compile_proxy(world(), "nobody")


def test_a_rule_knows_its_line():
    found = compile_proxy(world(virtual_service("{hosts: [api], http: [{route: [{destination: {host: api}}]}]}")), "web-v1")
    assert found.origins["/apis/networking.istio.io/v1/namespaces/default/virtual-service/api#0"].startswith("mesh.yaml:4")
