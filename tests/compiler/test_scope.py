"""Services that a proxy may be led to though it does not see them."""

import pytest

from tests.compiler.worlds import compiled, document, virtual_service

PORTS = "ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]"
HIDDEN = document("ServiceEntry", "hidden", f"{{hosts: [hidden.example], exportTo: [istio-system], resolution: DNS, {PORTS}}}")


def clusters(workload, destination):
    service = virtual_service(f"{{hosts: [api], http: [{{route: [{{destination: {destination}}}]}}]}}")
    return sorted(name for name in compiled(workload, HIDDEN, service)["clusters"] if "hidden" in name)


@pytest.mark.parametrize(
    ("destination", "led_to"),
    [
        ("{host: api}", []),
        ("{host: hidden.example}", ["outbound|443||hidden.example", "outbound|80||hidden.example"]),
        ("{host: hidden.example, port: {number: 80}}", ["outbound|80||hidden.example"]),
        ("{host: hidden.example, port: {number: 81}}", []),
    ],
)
def test_virtual_services_lead_to_what_their_own_namespace_keeps_for_others(destination, led_to):
    assert clusters("web-v1", destination) == led_to


def test_a_gateway_gets_what_it_sees_and_no_more():
    assert clusters("gate-v1", "{host: api}") == ["outbound|443||hidden.example", "outbound|80||hidden.example"]
