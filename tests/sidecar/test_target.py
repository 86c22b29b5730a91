"""Which TLS an endpoint is spoken to with."""

from devmesh.sidecar.config import Cluster, Endpoint, TlsContext, TransportChoice
from devmesh.sidecar.target import HTTP_ALPN, http_target, transport_for

MESH = TlsContext("default", "ROOTCA", alpn=(b"istio-peer-exchange", b"istio"))
ORIGIN = TlsContext("", "file-root:system", alpn=(b"h2", b"http/1.1"))
SIDECAR, STRANGER = Endpoint("10.0.0.1", 80, labels=(("tlsMode", "istio"),)), Endpoint("10.0.0.2", 80)
AUTO = (TransportChoice("tlsMode-istio", (("tlsMode", "istio"),), MESH), TransportChoice("tlsMode-disabled", (), None))


def cluster(**fields):
    return Cluster("c", "EDS", "RANDOM", (SIDECAR, STRANGER), **fields)


def test_the_first_match_that_the_endpoints_metadata_contains_decides():
    assert transport_for(cluster(transports=AUTO), SIDECAR) is MESH
    assert transport_for(cluster(transports=AUTO, tls=MESH), STRANGER) is None


def test_without_a_match_the_clusters_own_is_taken():
    only_sidecars = cluster(transports=AUTO[:1], tls=ORIGIN)
    assert transport_for(only_sidecars, STRANGER) is ORIGIN


def test_a_sidecar_is_offered_istios_names_for_http_and_an_origin_its_own_but_h2():
    assert http_target(cluster(transports=AUTO), SIDECAR).alpn == HTTP_ALPN
    assert http_target(cluster(tls=ORIGIN), STRANGER).alpn == (b"http/1.1",)
    assert http_target(cluster(transports=AUTO), STRANGER).tls is None


def test_auto_sni_is_the_requests_host_but_an_address_is_no_server_name():
    named = http_target(cluster(tls=ORIGIN, auto_sni=True, auto_san_validation=True), STRANGER, "example.org").tls
    assert (named.sni, named.sans) == ("example.org", (("exact", "example.org"),))
    address = http_target(cluster(tls=ORIGIN, auto_sni=True, auto_san_validation=True), STRANGER, "[::1]").tls
    assert (address.sni, address.sans) == ("", (("exact", "::1"),))


def test_two_names_are_two_pools_and_the_same_one_is_found_again():
    keys = [http_target(cluster(tls=ORIGIN, auto_sni=True), STRANGER, host).pool_key for host in ("a.example", "b.example", "a.example")]
    assert keys[0] == keys[2] != keys[1]
