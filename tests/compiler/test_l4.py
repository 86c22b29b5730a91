"""`tcp` and `tls` routes: which of them a gateway's server takes."""

import pytest

from tests.compiler.test_gateways import gateway, server
from tests.compiler.worlds import compiled, document

TCP = gateway("g", server(31400, "tcp", "TCP", '"*"'))
PASSED = gateway("g", server(443, "tls", "TLS", '"*.example"', "mode: PASSTHROUGH"))
API, WEB = "{destination: {host: api, port: {number: 6000}}}", "{destination: {host: web}}"


def routes(spec, hosts='"*"'):
    return document("VirtualService", "v", f"{{hosts: [{hosts}], gateways: [g], {spec}}}")


def proxies(*yaml, port):
    listener = compiled("gate-v1", *yaml)["listeners"].get(f"0.0.0.0_{port}", {"filter_chains": []})
    return [(c.get("filter_chain_match", {}).get("server_names"), c["filters"][0]["typed_config"]) for c in listener["filter_chains"]]


@pytest.mark.parametrize(
    ("tcp", "cluster"),
    [
        (f"[{{route: [{API}]}}]", "outbound|6000||api.default.svc.cluster.local"),
        (f"[{{route: [{WEB}]}}]", "outbound|9080||web.default.svc.cluster.local"),
        (
            f"[{{match: [{{port: 1}}], route: [{API}]}}, {{match: [{{port: 31400}}], route: [{WEB}]}}]",
            "outbound|9080||web.default.svc.cluster.local",
        ),
        (f"[{{match: [{{gateways: [h]}}], route: [{API}]}}, {{route: [{WEB}]}}]", "outbound|9080||web.default.svc.cluster.local"),
    ],
    ids=["named port", "the service's only port", "port of the match", "gateway of the match"],
)
def test_the_first_tcp_route_that_fits_is_taken(tcp, cluster):
    ((_, proxy),) = proxies(TCP, routes(f"tcp: {tcp}"), port=31400)
    assert proxy["cluster"] == cluster


def test_several_destinations_share_by_weight_and_one_without_gets_nothing():
    tcp = "tcp: [{route: [{destination: {host: api, port: {number: 6000}}, weight: 100}, {destination: {host: web}, weight: 0}]}]"
    ((_, proxy),) = proxies(TCP, routes(tcp), port=31400)
    assert proxy["weighted_clusters"]["clusters"] == [{"name": "outbound|6000||api.default.svc.cluster.local", "weight": 100}]
    assert proxy["stat_prefix"] == "v.default"


@pytest.mark.parametrize("yaml", [(TCP,), (TCP, routes(f"tcp: [{{match: [{{port: 1}}], route: [{API}]}}]")), (PASSED,)])
def test_a_server_without_a_route_opens_no_port(yaml):
    assert compiled("gate-v1", *yaml)["listeners"] == {}


def test_a_passed_server_name_is_the_first_routes():
    first = routes(f"tls: [{{match: [{{sniHosts: [a.example, b.example]}}], route: [{API}]}}]", '"*.example"')
    second = routes(f"tls: [{{match: [{{sniHosts: [B.example]}}, {{sniHosts: [c.example]}}], route: [{WEB}]}}]", '"*.example"')
    found = proxies(PASSED, first, second.replace("name: v,", "name: w,"), port=443)
    assert [names for names, _ in found] == [["a.example", "b.example"], ["c.example"]]
