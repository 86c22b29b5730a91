"""What is compiled of random input leads to the line of YAML that it follows from."""

import json

import pytest

from devmesh.compiler import World, compile_proxy
from devmesh.config.loader import load_text
from tests.square.compilers import WIDE, WIDE_WORKLOADS, topology
from tests.square.wide_inputs import Wide

SEEDS = (*range(6), 11, 24)  # the last two have delegates


class Named(Wide):
    """Each HTTP route has a name of its own."""

    def documents(self):
        found = super().documents()
        for document in found:
            for index, route in enumerate(document["spec"].get("http", ())):
                route["name"] = f"{document['metadata']['name'].replace('-', '_')}/{index}"
        return found


def compiled(text):
    world = World.from_topology(topology(WIDE), load_text(text, "in.yaml").resources)
    return [compile_proxy(world, workload).snapshot.to_json() for workload in WIDE_WORKLOADS]


def written_at(text, source):
    """The JSON value that starts at `file:line:column`."""
    file, line, column = source.split(":")
    assert file == "in.yaml"
    return json.JSONDecoder().raw_decode(text.split("\n", int(line) - 1)[-1][int(column) - 1 :])[0]


def sources(resources, kind):
    """(resource, source) of those that a resource of `kind` shaped."""
    for one in resources:
        metadata = one.get("metadata", {}).get("filter_metadata", {})
        if f"/{kind}/" in metadata.get("istio", {}).get("config", ""):
            yield one, metadata["devmesh"]["source"]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_route_leads_to_its_own_element(seed):
    text = Named(seed).yaml()
    for xds in compiled(text):
        routes = [route for table in xds["routes"] for host in table["virtual_hosts"] for route in host.get("routes", ())]
        for route, source in sources(routes, "virtual-service"):
            name = route["name"].rpartition("-")[2].partition(".")[0]  # a delegate's is behind its root's, a match's behind both
            assert written_at(text, source)["name"] == name


@pytest.mark.parametrize("seed", SEEDS)
def test_each_cluster_leads_to_its_subset_or_its_hosts_policy(seed):
    text = Wide(seed).yaml()
    for xds in compiled(text):
        for cluster, source in sources(xds["clusters"], "destination-rule"):
            subset = cluster["name"].split("|")[2]
            if subset:
                assert written_at(text, source)["name"] == subset
            else:
                assert written_at(text, source) in ("trafficPolicy", "spec")


@pytest.mark.parametrize("seed", SEEDS)
def test_each_chain_below_http_leads_to_its_route(seed):
    text = Wide(seed).yaml()
    for xds in compiled(text):
        chains = [chain for listener in xds["listeners"] for chain in listener["filter_chains"]]
        for chain, source in sources(chains, "virtual-service"):
            written = written_at(text, source)
            names = chain.get("filter_chain_match", {}).get("server_names")
            assert "route" in written
            assert names is None or names in [sorted(match["sniHosts"]) for match in written["match"]]
