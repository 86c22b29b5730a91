"""Filter chains of virtualInbound, and outbound listeners."""

import pytest

from tests.compiler.worlds import compiled, peer_authentication


def chains(*yaml):
    return compiled("api-v1", *yaml)["listeners"]["virtualInbound"]["filter_chains"]


def of_port(found, port):
    return [one for one in found if one["filter_chain_match"].get("destination_port") == port]


@pytest.mark.parametrize(("mode", "tls", "plain"), [("STRICT", 1, 0), ("PERMISSIVE", 1, 1), ("DISABLE", 0, 1)])
def test_an_http_port_takes_what_its_mode_allows(mode, tls, plain):
    found = of_port(chains(peer_authentication(f"{{mtls: {{mode: {mode}}}}}")), 8000)
    assert sum("transport_socket" in one for one in found) == tls
    assert sum("transport_socket" not in one for one in found) == plain


def test_a_policy_for_a_port_without_service_gets_chains_of_its_own():
    spec = "{selector: {matchLabels: {app: api}}, mtls: {mode: STRICT}, portLevelMtls: {7777: {mode: DISABLE}}}"
    found = of_port(chains(peer_authentication(spec)), 7777)
    assert found
    assert all("transport_socket" not in one for one in found)


def test_http_ports_share_a_listener_and_tcp_ports_have_their_services_address():
    names = set(compiled("web-v1")["listeners"])
    assert names == {"0.0.0.0_9080", "0.0.0.0_8000", "10.96.0.2_6000", "virtualOutbound", "virtualInbound"}
