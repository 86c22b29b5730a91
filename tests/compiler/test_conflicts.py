"""Services that share an outbound listener; the square compares what becomes of them with Istio."""

import pytest

from tests.compiler.worlds import compiled, document


def entry(name, protocol, number=7001):
    spec = f"{{hosts: [{name}.example], resolution: DNS, ports: [{{number: {number}, name: a, protocol: {protocol}}}]}}"
    return document("ServiceEntry", name, spec)


def found(*yaml):
    """The listener of port 7001: the server names of its chains, "http" for one that reads requests, "tcp" for any other."""
    listener = compiled("web-v1", *yaml)["listeners"]["0.0.0.0_7001"]
    chains = [*listener["filter_chains"], listener.get("default_filter_chain", {})]
    return [kind(chain) for chain in chains if chain.get("name") != "PassthroughFilterChain" and chain]


def kind(chain):
    names = chain.get("filter_chain_match", {}).get("server_names")
    return names or ("http" if chain["filters"][-1]["name"].endswith("http_connection_manager") else "tcp")


@pytest.mark.parametrize(
    ("first", "second", "chains"),
    [
        ("TLS", "TLS", [["one.example"], ["two.example"]]),
        ("TLS", "HTTP", [["one.example"], "http"]),
        ("HTTP", "TLS", ["http", ["two.example"]]),
        ("HTTP", "TCP", ["http", "tcp"]),
        ("TCP", "HTTP", ["http", "tcp"]),
        ("TCP", "TCP", ["tcp"]),
        ("HTTP", "MONGO", ["http"]),
        ("MYSQL", "HTTP", ["tcp"]),
        ("MONGO", "MYSQL", ["tcp"]),
        ("TCP", "HTTP_PROXY", ["http"]),
    ],
)
def test_services_of_one_port_share_what_a_proxy_can_tell_apart(first, second, chains):
    assert found(entry("one", first), entry("two", second)) == chains


def test_of_two_that_nothing_tells_apart_the_first_has_the_port():
    listener = compiled("web-v1", entry("one", "TCP"), entry("two", "TCP"))["listeners"]["0.0.0.0_7001"]
    assert listener["filter_chains"][0]["filters"][0]["typed_config"]["cluster"] == "outbound|7001||one.example"


def test_a_port_whose_requests_nobody_reads_has_no_table():
    assert "7001" not in compiled("web-v1", entry("one", "MYSQL"), entry("two", "HTTP"))["routes"]
