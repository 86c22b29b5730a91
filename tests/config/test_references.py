import json

import pytest

from tests.config.bookinfo import ROUTE, destination_rule, diagnose, topology, virtual_service
from tests.support.web_certificates import WebCa

SUBSETS = "subsets: [{name: v1, labels: {version: v1}}, {name: v9, labels: {version: v9}}]"


def to(destination):
    return virtual_service(f"{{route: [{{destination: {destination}}}]}}")


@pytest.mark.parametrize(
    ("text", "code", "severity", "message", "hint"),
    [
        (to("{host: reviws}"), "IST0101", "error", 'Referenced host not found: "reviws"', 'did you mean "reviews"?'),
        (to("{host: shop}"), "IST0101", "error", '"shop"', 'did you mean "shop.shop.svc.cluster.local"?'),
        (to("{host: reviews.default}"), "IST0101", "error", '"reviews.default"', 'write it in full: "reviews.default.svc.cluster.local"'),
        (to("{host: reviews, port: {number: 81}}"), "IST0101", "error", 'host:port not found: "reviews:81"', "reviews has port 9080"),
        (to("{host: reviews, subset: v3}"), "IST0101", "error", '"reviews+v3"', "apply a DestinationRule for reviews"),
        (to("{host: shop.shop.svc.cluster.local}"), "IST0112", "warning", "exposes multiple ports [8080, 8081]", "port:"),
        (to("{host: grpc, port: {number: 9000}}"), "DM0008", "warning", "HTTP/2", "protocol: http"),
        (virtual_service(f"{{{ROUTE}}}", "[redis]"), "DM0008", "warning", "port 6379 is plain TCP (by its x-devmesh)", "protocol: http"),
        (virtual_service(f"{{{ROUTE}}}", "[review]"), "DM0007", "warning", 'there is no service "review"', 'did you mean "reviews"?'),
        (virtual_service(f"{{{ROUTE}}}", "[reviews]", "gateways: [gate]"), "IST0101", "error", 'gateway not found: "gate"', None),
        (virtual_service(f"{{match: [{{gateways: [gate]}}], {ROUTE}}}"), "IST0101", "error", 'gateway not found: "gate"', None),
        (destination_rule("{tls: {mode: SIMPLE}}"), "IST0128", "warning", "no caCertificates", None),
        (
            destination_rule("{portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}"),
            "IST0129",
            "warning",
            "no caCertificates are set to validate server identity for host: reviews at port number:443",
            None,
        ),
        (destination_rule("{tls: {mode: DISABLE}}", SUBSETS), "IST0173", "warning", "Subset v9", None),
    ],
)  # fmt: skip
def test_what_is_referred_to_must_exist(tmp_path, text, code, severity, message, hint):
    (found,) = diagnose(text, topology(tmp_path))
    assert (found.code, found.severity) == (code, severity)
    assert message in found.message
    assert hint is None or hint in found.hint


def test_a_misspelt_subset_names_the_one_that_exists(tmp_path):
    text = (
        destination_rule("{tls: {mode: DISABLE}}", "subsets: [{name: canary, labels: {version: v1}}]")
        + "---\n"
        + to("{host: reviews, subset: canry}")
    )
    (found,) = diagnose(text, topology(tmp_path))
    assert found.hint == 'did you mean "canary"?'
    assert found.where.line == 3


def test_subsets_may_be_defined_for_a_wildcard_and_by_another_spelling():
    rule = destination_rule("{tls: {mode: DISABLE}}", "subsets: [{name: v1}]")
    assert not diagnose(rule.replace("host: reviews", "host: '*.default.svc.cluster.local'") + "---\n" + to("{host: reviews, subset: v1}"))
    assert not diagnose(rule + "---\n" + to("{host: reviews.default.svc.cluster.local, subset: v1}"))


def gateway(name="gate", selector="{istio: ingressgateway}", port=80, hosts="['*']"):
    return (
        f"{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: {name}}}, spec: {{selector: {selector}, "
        f"servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: {hosts}}}]}}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (gateway(), []),
        (gateway(port=8080), []),
        (gateway(port=31499), ["IST0162"]),
        (gateway(selector="{istio: other}"), ["IST0101"]),
        (gateway() + "---\n" + gateway("other"), ["IST0145"]),
        (gateway(hosts="[a.com]") + "---\n" + gateway("other", hosts="[b.com]"), []),
        (gateway(hosts="[a.com]") + "---\n" + virtual_service(f"{{{ROUTE}}}", "[b.com]", "gateways: [gate]"), ["IST0132"]),
        (gateway(hosts="['other/*']") + "---\n" + virtual_service(f"{{{ROUTE}}}", "[b.com]", "gateways: [default/gate]"), ["IST0132"]),
        (gateway(hosts="['*.com']") + "---\n" + virtual_service(f"{{{ROUTE}}}", "[b.com]", "gateways: [gate]"), []),
    ],
)
def test_gateways_and_their_virtual_services_fit(tmp_path, text, codes):
    assert [one.code for one in diagnose(text, topology(tmp_path))] == codes


def test_two_virtual_services_for_one_host_in_the_mesh_conflict():
    first = virtual_service(f"{{{ROUTE}}}")
    second = first.replace("name: reviews", "name: other").replace("hosts: [reviews]", "hosts: [reviews.default.svc.cluster.local]")
    (found,) = diagnose(f"{first}---\n{second}")
    assert (found.code, found.severity, found.where.line) == ("IST0109", "error", 3)
    assert "default/reviews,default/other" in found.message
    assert not diagnose(
        f"{gateway()}---\n{first}---\n"
        + second.replace("http:", "gateways: [gate], http:").replace("reviews.default.svc.cluster.local", "a.com")
    )


def test_of_two_peer_authentications_with_one_scope_the_later_is_told():
    text = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: %s}, spec: {mtls: {mode: STRICT}}}\n"
    (found,) = diagnose(text % "a" + "---\n" + text % "b")
    assert (found.code, found.where.line) == ("DM0012", 3)


def test_a_selector_that_matches_nothing_is_a_warning(tmp_path):
    text = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {selector: {matchLabels: {app: %s}}}}"
    assert [one.code for one in diagnose(text % "reviws", topology(tmp_path))] == ["IST0127"]
    assert not diagnose(text % "reviews", topology(tmp_path))


def test_hosts_of_service_entries_are_known(tmp_path):
    spec = "{hosts: [example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}"
    entry = f"{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a}}, spec: {spec}}}\n---\n"
    assert diagnose(entry + to("{host: example.com}"), topology(tmp_path)) == []
    assert [one.code for one in diagnose(entry + to("{host: other.com}"), topology(tmp_path))] == ["IST0101"]


GATEWAY = (
    "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {selector: {istio: ingressgateway}, servers: "
    "[{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: %s, credentialName: a}}]}}\n"
)
PAIR = WebCa().pair("a.example")


def secret(name="a", namespace="istio-system", roots=""):
    values = {"tls.crt": PAIR.certificate, "tls.key": PAIR.key} | ({"ca.crt": roots} if roots else {})
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": values})


@pytest.mark.parametrize(
    ("mode", "secrets", "message", "hint"),
    [
        ("SIMPLE", [], 'credentialName not found: "a" in namespace istio-system', "apply a Secret a to namespace istio-system"),
        ("SIMPLE", [secret(namespace="default")], 'credentialName not found: "a"', "metadata: {namespace: istio-system}"),
        ("MUTUAL", [secret()], "Secret istio-system/a has no ca.crt", None),
        ("SIMPLE", [secret()], None, None),
        ("MUTUAL", [secret(roots=WebCa().pem)], None, None),
        ("MUTUAL", [secret(), secret("a-cacert", roots=WebCa().pem)], None, None),
    ],
)
def test_a_credential_is_a_secret_of_the_gateways_own_namespace_with_what_the_mode_needs(tmp_path, mode, secrets, message, hint):
    found = diagnose("---\n".join([GATEWAY % mode, *(f"{one}\n" for one in secrets)]), topology(tmp_path))
    assert [one.code for one in found] == (["IST0101"] if message else [])
    assert all(message in one.message and one.where.line == 1 for one in found)
    assert all(hint is None or hint in one.hint for one in found)


def test_gateways_of_tls_and_tcp_matches_must_exist_and_endpoints_are_not_the_meshs_own(tmp_path):
    where = topology(tmp_path)
    text = (
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v}, spec: {hosts: [redis], "
        "tcp: [{match: [{gateways: [nope]}], route: [{destination: {host: redis}}]}], "
        "tls: [{match: [{sniHosts: [redis], gateways: [nope]}], route: [{destination: {host: redis}}]}]}}\n"
    )
    assert [one.message.partition(": ")[2] for one in diagnose(text, where)] == ['Referenced gateway not found: "nope"'] * 2
    spec = f"hosts: [a.example], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, endpoints: [{{address: {where.workloads[0].ip}}}]"
    (found,) = diagnose(f"{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a}}, spec: {{{spec}}}}}\n", where)
    assert (found.code, "spec.endpoints[0].address" in found.message) == ("DM0007", True)


@pytest.mark.parametrize(
    ("labels", "port", "says"),
    [
        ("{app: reviews}", 9080, []),
        ("{app: reviews, version: v1}", 6100, [("DM0007", "reviews-v1 has no port 6100: name one that it has as targetPort")]),
        ("{app: nobody}", 9080, [("IST0127", "No matching workloads for this resource with the following labels: app=nobody")]),
    ],
)
def test_workloads_that_an_entry_selects_are_there_and_have_its_ports(tmp_path, labels, port, says):
    ports = f"[{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]"
    spec = f"hosts: [a.example], ports: {ports}, resolution: STATIC, workloadSelector: {{labels: {labels}}}"
    text = f"{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a}}, spec: {{{spec}}}}}\n"
    found = diagnose(text, topology(tmp_path))
    assert [one.code for one in found] == [code for code, _ in says]
    assert all(message in one.message for one, (_, message) in zip(found, says, strict=True))
