"""Whole snapshots: real ones of Istio's compiler, the hand-written ones that Envoy was observed with, and broken ones."""

import gzip
import json
from pathlib import Path

import pytest

from devmesh.sidecar.config import ConfigError, HttpManager, TcpProxy
from devmesh.sidecar.config_parse import parse_snapshot
from tests.sidecar.snapshots import cluster, host, http_chain, listener, parsed, refusal, route, table

HERE = Path(__file__).parents[1]
GOLDEN = sorted((HERE / "square" / "golden").glob("*.json.gz"))
EXAMPLES = HERE / "conformance" / "xds-examples"


def golden(name):
    return json.loads(gzip.decompress((HERE / "square" / "golden" / name).read_bytes()))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.name.partition(".")[0])
def test_what_istios_compiler_makes_is_understood(file):
    for xds in golden(file.name).values():
        config = parse_snapshot(xds)
        assert set(config.listeners) == {one["name"] for one in xds["listeners"]}
        assert set(config.clusters) == {one["name"] for one in xds["clusters"]}


def test_the_listeners_of_a_sidecar_are_told_apart():
    listeners = parse_snapshot(golden("001-plain.json.gz")["reviews-v1"]).listeners
    inbound, outbound, http = listeners["virtualInbound"], listeners["virtualOutbound"], listeners["0.0.0.0_9080"]
    assert (inbound.traffic_direction, inbound.bind_to_port, inbound.inspect_tls, inbound.inspect_http) == ("INBOUND", True, True, True)
    assert outbound.use_original_dst
    assert not http.bind_to_port
    assert isinstance(http.chains[0].network, HttpManager)
    assert http.chains[0].match.transport_protocol == "raw_buffer"
    assert isinstance(outbound.chains[0].network, TcpProxy)
    tls = [chain for chain in inbound.chains if chain.tls is not None]
    assert tls
    assert all(chain.tls.require_client_certificate and chain.tls.secret == "default" for chain in tls)
    assert {chain.match.destination_port for chain in tls} >= {9080}


def test_a_cluster_of_the_mesh_knows_its_service_and_how_to_reach_each_endpoint():
    found = parse_snapshot(golden("001-plain.json.gz")["productpage-v1"]).clusters
    reviews = next(c for c in found.values() if c.name.startswith("outbound|9080||reviews."))
    assert (reviews.kind, reviews.lb_policy) == ("EDS", "LEAST_REQUEST")
    assert (reviews.service_name, reviews.service_namespace) == ("reviews", "default")
    assert [choice.name for choice in reviews.transports] == ["tlsMode-istio", "tlsMode-disabled"]
    assert reviews.transports[0].tls.sans[0][1].startswith("spiffe://")
    assert len(reviews.endpoints) == 3
    assert {endpoint.tls_mode for endpoint in reviews.endpoints} == {"istio"}


@pytest.mark.parametrize("node", ["web", "reviews"])
def test_the_hand_written_examples_are_refused_for_their_authorization_filters(node):
    parts = {
        kind: json.loads((EXAMPLES / f"{node}.{kind}.json").read_text())["resources"]
        for kind in ("listeners", "routes", "clusters", "endpoints")
        if (EXAMPLES / f"{node}.{kind}.json").exists()
    }
    with pytest.raises(ConfigError, match=r"(rbac|jwt_authn|local_ratelimit) is not supported"):
        parse_snapshot({"version": "1", **parts})


@pytest.mark.parametrize(
    ("parts", "message", "why"),
    [
        (
            {"clusters": [{"name": "c", "type": "STATIC", "connect_timeout": "soon"}]},
            "c: malformed resource",
            "a bad value names its resource",
        ),
        ({"clusters": [{"name": "c", "lb_policy": 3, "load_assignment": []}]}, "c: ", "a value of the wrong kind too"),
        ({"routes": [{"name": "t", "virtual_hosts": [{"name": "v"}]}]}, "t: malformed resource: KeyError: 'domains'", "and a missing one"),
        (
            {"listeners": [listener(http_chain(route_config=None, rds={"route_config_name": "9080"}))]},
            "l: malformed resource",
            "a null is not a message",
        ),
    ],
)
def test_a_malformed_resource_is_a_nack(parts, message, why):
    assert refusal(**parts).startswith(message), why


def test_a_listener_gets_its_routes_by_name_or_is_refused():
    chain = http_chain(rds={"route_config_name": "t"})
    del chain["filters"][0]["typed_config"]["route_config"]
    config = parsed(listeners=[listener(chain)], routes=[table(host(route(name="found")))])
    assert config.listeners["l"].chains[0].network.route_table.virtual_hosts[0].routes[0].name == "found"
    assert refusal(listeners=[listener(chain)]) == "l: route table t is not in this snapshot"


NAMES = [
    {
        "table": {
            "reviews.default.svc.cluster.local": {"ips": ["240.240.0.1"], "shortname": "Reviews", "namespace": "default"},
            "reviews.other.svc.cluster.local": {"ips": ["240.240.0.2"], "shortname": "reviews", "namespace": "other"},
            "api.example.com": {"ips": ["240.240.0.3"]},
        }
    }
]


@pytest.mark.parametrize(
    ("namespace", "name", "ip", "why"),
    [
        ("default", "reviews", "240.240.0.1", "a bare name is the service of one's own namespace"),
        ("other", "reviews", "240.240.0.2", "whatever order they come in"),
        ("third", "reviews", "240.240.0.1", "without one there, the first"),
        ("default", "reviews.other", "240.240.0.2", "a name with namespace is that one's"),
        ("default", "reviews.other.svc", "240.240.0.2", "in all of a resolver's forms"),
        ("default", "reviews.other.svc.cluster.local", "240.240.0.2", "up to the whole name"),
        ("default", "api.example.com", "240.240.0.3", "a host that is no service has one form"),
    ],
)
def test_a_name_resolves_as_in_the_workloads_pod(namespace, name, ip, why):
    assert parse_snapshot({"names": NAMES}, namespace).names[name] == (ip,), why


def test_what_was_received_is_kept_for_the_config_dump():
    snapshot = {"version": "7", "clusters": [cluster("c")]}
    config = parse_snapshot(snapshot)
    assert config.version == "7"
    assert config.raw["clusters"] == snapshot["clusters"]


def rds_chain(name):
    chain = http_chain(rds={"route_config_name": name, "config_source": {"ads": {}}})
    del chain["filters"][0]["typed_config"]["route_config"]
    return chain


def two_tables(first="r"):
    hosts = [host(route(name=first), name="one", domains=("one",)), host(route(), name="two", domains=("two",))]
    return [table(*hosts, name="80"), table(host(route()), name="81")]


EDS = {"type": "EDS"}
WHOLE = {
    "version": "1",
    "routes": two_tables(),
    "clusters": [cluster("a", **EDS), cluster("b", **EDS)],
    "endpoints": [{"cluster_name": "a"}, {"cluster_name": "b"}],
    "listeners": [listener(rds_chain("80"), name="l80"), listener(rds_chain("81"), name="l81")],
    "names": NAMES,
    "secrets": [],
}


def again(value):
    """Equal, and another object, as what comes over the wire."""
    return json.loads(json.dumps(value))


def table_of(config, name):
    return config.listeners[name].chains[0].network.route_table


def test_a_type_that_is_missing_is_as_it_was():
    before = parse_snapshot(WHOLE)
    after = parse_snapshot({"version": "2", "routes": again(WHOLE["routes"])}, before=before)
    assert after.version == "2"
    assert after.names is before.names
    assert [after.listeners[name] is before.listeners[name] for name in ("l80", "l81")] == [True, True]
    assert {kind: after.raw[kind] for kind in ("routes", "clusters", "endpoints", "listeners", "names")} == {
        kind: WHOLE[kind] for kind in ("routes", "clusters", "endpoints", "listeners", "names")
    }


def test_of_a_changed_table_only_what_changed_is_new_and_who_names_it_has_it():
    before = parse_snapshot(WHOLE)
    after = parse_snapshot({"version": "2", "routes": two_tables("other")}, before=before)
    assert after.routes["81"] is before.routes["81"]
    assert after.routes["80"].virtual_hosts[0].routes[0].name == "other"
    assert after.routes["80"].virtual_hosts[1] is before.routes["80"].virtual_hosts[1]
    assert after.listeners["l81"] is before.listeners["l81"]
    assert table_of(after, "l80") is after.routes["80"]
    assert table_of(before, "l80") is before.routes["80"], "what runs is left alone"


def test_what_a_table_says_of_all_its_hosts_is_read_for_each():
    cors = {"typed_per_filter_config": {"envoy.filters.http.cors": {"@type": "a.CorsPolicy", "allow_methods": "GET"}}}
    before = parse_snapshot(WHOLE)
    tables = again(WHOLE["routes"])
    tables[0] |= cors
    after = parse_snapshot({"version": "2", "routes": tables}, before=before)
    assert all(one.cors is not None for found in after.routes["80"].virtual_hosts for one in found.routes)


def test_changed_endpoints_make_their_cluster_new_and_no_other():
    before = parse_snapshot(WHOLE)
    address = {"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}}
    changed = [{"cluster_name": "a", "endpoints": [{"lb_endpoints": [address]}]}, {"cluster_name": "b"}]
    after = parse_snapshot({"version": "2", "endpoints": changed}, before=before)
    assert [one.address for one in after.clusters["a"].endpoints] == ["10.0.0.1"]
    assert after.clusters["b"] is before.clusters["b"]


def test_what_is_gone_is_gone_and_missed_by_who_names_it():
    before = parse_snapshot(WHOLE)
    fewer = parse_snapshot({"version": "2", "clusters": [again(WHOLE["clusters"][1])], "endpoints": []}, before=before)
    assert set(fewer.clusters) == {"b"}
    with pytest.raises(ConfigError, match="route table 81 is not in this snapshot"):
        parse_snapshot({"version": "2", "routes": WHOLE["routes"][:1]}, before=before)


def test_a_resource_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="one of the clusters has no name"):
        parse_snapshot({"clusters": [{"type": "EDS"}]})


@pytest.mark.parametrize("file", GOLDEN[::7], ids=lambda file: file.name.partition(".")[0])
def test_from_one_configuration_to_another_every_listener_has_the_tables_of_its_own(file):
    config = parse_snapshot({})
    for xds in (*golden(file.name).values(), *golden(file.name).values()):
        config = parse_snapshot(xds, before=config)
        managers = [chain.network for one in config.listeners.values() for chain in one.chains if isinstance(chain.network, HttpManager)]
        named = [one.route_table for one in managers if one.route_table.name in config.routes]
        assert all(found is config.routes[found.name] for found in named)
        assert {kind: config.raw[kind] for kind in xds} == xds
        assert set(config.clusters) == {one["name"] for one in xds["clusters"]}
        fresh = parse_snapshot(xds)
        assert {name: one.endpoints for name, one in config.clusters.items()} == {
            name: one.endpoints for name, one in fresh.clusters.items()
        }
