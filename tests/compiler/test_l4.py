"""`tcp` and `tls` routes: which of them a gateway's server takes."""

import pytest

from devmesh.compiler import MeshSettings
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


ENTRY = "{hosts: [%s], ports: [{number: %d, name: p, protocol: %s}], resolution: DNS%s}"


def entry(host, port=443, protocol="TLS", more="", namespace="default"):
    return document("ServiceEntry", host.partition(".")[0], ENTRY % (host, port, protocol, more), namespace)


def outbound(*yaml, listener, workload="web-v1"):
    found = compiled(workload, *yaml)["listeners"].get(listener, {"filter_chains": []})
    return [
        (c.get("filter_chain_match", {}).get("server_names"), c["filters"][0]["typed_config"].get("cluster"))
        for c in found["filter_chains"]
    ]


def test_tls_hosts_without_an_address_share_their_port_by_server_name():
    found = outbound(entry("a.ext"), entry("b.ext"), entry("c.ext", more=", addresses: [10.7.0.1]"), listener="0.0.0.0_443")
    assert found == [(["a.ext"], "outbound|443||a.ext"), (["b.ext"], "outbound|443||b.ext")]


def test_of_plain_tcp_without_an_address_the_first_has_the_port():
    assert outbound(entry("a.ext", 7000, "TCP"), entry("b.ext", 7000, "TCP"), listener="0.0.0.0_7000") == [(None, "outbound|7000||a.ext")]


def mesh(spec, host):
    return document("VirtualService", "v", f"{{hosts: [{host}], {spec}}}")


@pytest.mark.parametrize(
    ("match", "cluster"),
    [
        ("", "outbound|9080||web.default.svc.cluster.local"),
        ("match: [{port: 6000}], ", "outbound|9080||web.default.svc.cluster.local"),
        ("match: [{port: 1}], ", "outbound|6000||api.default.svc.cluster.local"),
        ("match: [{sourceLabels: {app: web}}], ", "outbound|9080||web.default.svc.cluster.local"),
        ("match: [{sourceLabels: {app: api}}], ", "outbound|6000||api.default.svc.cluster.local"),
        ("match: [{sourceNamespace: other}], ", "outbound|6000||api.default.svc.cluster.local"),
        ("match: [{gateways: [g]}], ", "outbound|6000||api.default.svc.cluster.local"),
        ("match: [{gateways: [g]}, {gateways: [mesh]}], ", "outbound|9080||web.default.svc.cluster.local"),
    ],
)
def test_a_tcp_route_of_the_mesh_is_for_whom_its_match_says(match, cluster):
    assert outbound(mesh(f"tcp: [{{{match}route: [{WEB}]}}]", "api"), listener="10.96.0.2_6000") == [(None, cluster)]


def test_a_tls_route_of_the_mesh_takes_a_server_name_elsewhere():
    tls = f"tls: [{{match: [{{port: 443, sniHosts: [a.ext]}}], route: [{API}]}}]"
    assert outbound(entry("a.ext"), mesh(tls, "a.ext"), listener="0.0.0.0_443") == [
        (["a.ext"], "outbound|6000||api.default.svc.cluster.local")
    ]


def test_what_is_no_known_server_name_goes_where_the_mesh_sends_the_unknown():
    for policy, cluster in (("ALLOW_ANY", "PassthroughCluster"), ("REGISTRY_ONLY", "BlackHoleCluster")):
        found = compiled("web-v1", entry("a.ext"), settings=MeshSettings(outbound_traffic_policy=policy))["listeners"]["0.0.0.0_443"]
        assert found["default_filter_chain"]["filters"][0]["typed_config"]["cluster"] == cluster
