"""From compiled routes, clusters and spans back to the lines of YAML."""

import pytest

from devmesh.cli.inspect import endpoints_table, routes_table
from devmesh.cli.sources import DestinationRules
from devmesh.cli.traces import why
from devmesh.collector.spans import Span
from devmesh.compiler.compile import compile_proxy
from devmesh.compiler.world import World
from devmesh.config.loader import load_text
from tests.config.bookinfo import topology

YAML = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
    - match: [{headers: {end-user: {exact: jason}}}, {uri: {exact: /x}, withoutHeaders: {a: {prefix: b}}}]
      route: [{destination: {host: ratings, subset: v1}}]
    - name: retried
      match: [{uri: {prefix: /ratings/1}, queryParams: {q: {regex: "[0-9]"}}}]
      route: [{destination: {host: ratings, subset: v1}}]
    - match: [{uri: {prefix: /gone}}]
      directResponse: {status: 410}
    - delegate: {name: rest}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rest}
spec:
  http:
    - route: [{destination: {host: ratings}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  subsets:
    - {name: v1, labels: {version: v1}}
"""
CONFIG = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/ratings"
V1 = "outbound|9080|v1|ratings.default.svc.cluster.local"
ALL = "outbound|9080||ratings.default.svc.cluster.local"


@pytest.fixture
def resources():
    return load_text(YAML, "r.yaml").resources


def test_each_route_shows_what_it_asks_for_and_its_line_be_it_a_delegates(tmp_path, resources):
    snapshot = compile_proxy(World.from_topology(topology(tmp_path), resources), "reviews-v1").snapshot
    table = [one for one in snapshot.resources["routes"] if one["name"] == "9080"]
    _, rows = routes_table(table)
    assert [row[2:] for row in rows if row[1].startswith("ratings")] == [
        ("/* end-user=jason", V1, "ratings", "r.yaml:7:7"),
        ("/x !a=b*", V1, "ratings", "r.yaml:7:7"),
        ("/ratings/1* ?q~[0-9]", V1, "ratings", "r.yaml:9:7"),
        ("/gone*", "direct_response", "ratings", "r.yaml:12:7"),
        ("/*", ALL, "ratings", "r.yaml:21:7"),
    ]
    assert {row[5] for row in rows if not row[1].startswith("ratings")} == {""}


@pytest.mark.parametrize(
    ("cluster", "place"), [(V1, "r.yaml:29:7"), (ALL, "r.yaml:26:1"), ("inbound|9080||", ""), ("PassthroughCluster", "")]
)
def test_a_cluster_leads_to_its_subset_or_its_rule(resources, cluster, place):
    assert DestinationRules(resources).place(cluster) == place


def test_an_endpoint_is_called_by_its_workload():
    address = {"endpoint": {"address": {"socket_address": {"address": "127.7.0.3", "port_value": 80}}}, "health_status": "HEALTHY"}
    _, rows = endpoints_table([{"cluster_name": ALL, "endpoints": [{"lb_endpoints": [address]}]}], {"127.7.0.3": "ratings-v1"})
    assert rows == [("127.7.0.3:80", "ratings-v1", "HEALTHY", ALL)]


def span(**attributes):
    return Span("t", "s", "", "GET ratings", "reviews", "client", None, 0.1, error=True, attributes=attributes)


def test_a_503_leads_to_the_rule_and_to_the_subset_that_selects_nobody(resources):
    attributes = {"istio.config": CONFIG, "devmesh.source": "r.yaml:7:7", "upstream_cluster": V1, "response_flags": "UH,URX"}
    assert why(span(**attributes), DestinationRules(resources)) == [
        f"VirtualService ratings sent it to {V1}: r.yaml:7:7",
        "UH: no healthy upstream, nobody there takes connections (devmesh status, devmesh proxy-config endpoints); DestinationRule: r.yaml:29:7",
        "URX: all retries, or attempts to connect, are used up",
    ]


def test_a_request_that_met_no_rule_and_no_trouble_has_nothing_to_explain(resources):
    assert why(span(response_flags="-", upstream_cluster=ALL), DestinationRules(resources)) == []
