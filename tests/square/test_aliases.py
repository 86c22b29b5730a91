"""A further name of a service is what Istio makes of a Kubernetes Service of type ExternalName."""

import json
import subprocess
from dataclasses import replace

from devmesh.compiler import World, compile_proxy
from devmesh.config.topology_types import Alias, Topology
from tests.square.compilers import TOPOLOGY, topology
from tests.square.normalise import normalise
from tests.support.require import tool

EXTERNAL_NAME = """\
apiVersion: v1
kind: Service
metadata: {name: stars, namespace: default}
spec: {type: ExternalName, externalName: ratings.default.svc.cluster.local}
"""
CALLER = "productpage-v1"


def with_alias(networks: tuple[str, ...]) -> Topology:
    plain = topology()
    services = (replace(one, aliases=(Alias("stars", networks),)) if one.name == "ratings" else one for one in plain.services)
    workloads = (replace(one, networks=("shop",)) for one in plain.workloads)
    return replace(plain, services=tuple(services), workloads=tuple(workloads))


def routes(found: Topology) -> object:
    return normalise(compile_proxy(World.from_topology(found), CALLER).snapshot.to_json())["routes"]


def test_an_alias_compiles_as_istio_compiles_an_external_name(tmp_path):
    case = tmp_path / "alias.yaml"
    case.write_text(EXTERNAL_NAME)
    oracle = tool("istio", "istio-oracle")
    done = subprocess.run([oracle, "-topology", TOPOLOGY, "-f", case, "-for", CALLER], capture_output=True, check=True)
    theirs = normalise(json.loads(done.stdout)[CALLER])["routes"]
    assert "stars.default.svc" in json.dumps(theirs)
    assert routes(with_alias(("shop",))) == theirs


def test_an_alias_of_a_network_that_the_caller_is_not_on_compiles_to_nothing():
    assert routes(with_alias(("elsewhere",))) == routes(topology())
    assert routes(with_alias(("shop",))) != routes(topology())
