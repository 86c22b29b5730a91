"""DestinationRules on clusters."""

from tests.compiler.worlds import compiled, destination_rule

API = "outbound|8000||api.default.svc.cluster.local"


def test_a_rule_for_a_wildcard_holds_until_a_closer_one():
    wide = destination_rule('{host: "*.default.svc.cluster.local", trafficPolicy: {loadBalancer: {simple: RANDOM}}}', "wide")
    close = destination_rule("{host: api, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}", "close")
    assert compiled("web-v1", wide)["clusters"][API]["lb_policy"] == "RANDOM"
    assert compiled("web-v1", wide, close)["clusters"][API]["lb_policy"] == "LEAST_REQUEST"


def test_two_rules_of_one_host_add_their_subsets():
    one = destination_rule("{host: api, subsets: [{name: old, labels: {version: v1}}]}", "a")
    two = destination_rule(
        "{host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: new, labels: {version: v2}}]}", "b"
    )
    clusters = compiled("web-v1", one, two)["clusters"]
    assert {name.split("|")[2] for name in clusters if name.startswith("outbound|8000|")} == {"", "old", "new"}
    assert clusters[API]["lb_policy"] == "RANDOM"


def test_port_level_settings_replace_the_policy_at_their_port_only():
    spec = "{host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 8000}, tls: {mode: DISABLE}}]}}"
    clusters = compiled("web-v1", destination_rule(spec))["clusters"]
    assert clusters[API]["lb_policy"] == "LEAST_REQUEST"
    assert "transport_socket_matches" not in clusters[API]
    assert clusters["outbound|6000||api.default.svc.cluster.local"]["lb_policy"] == "RANDOM"


def test_tls_to_the_outside_is_not_the_meshs_own():
    cluster = compiled("web-v1", destination_rule("{host: api, trafficPolicy: {tls: {mode: SIMPLE, sni: a.example}}}"))["clusters"][API]
    assert cluster["transport_socket"]["typed_config"]["sni"] == "a.example"
    assert "tls_certificate_sds_secret_configs" not in cluster["transport_socket"]["typed_config"]["common_tls_context"]
