import pytest

from tests.config.bookinfo import diagnose
from tests.config.cases import GATEWAYS
from tests.config.more_cases import CERTIFICATES, PEER_AUTHENTICATIONS
from tests.config.verdicts import check


@pytest.mark.parametrize("case", [*GATEWAYS, *CERTIFICATES, *PEER_AUTHENTICATIONS], ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)


HTTPS = "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example]"


@pytest.mark.parametrize(
    ("tls", "said_of", "severity", "message"),
    [
        ("mode: AUTO_PASSTHROUGH", ".mode", "warning", "this server is not opened"),
        ("mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_1", ".minProtocolVersion", "warning", "TLS 1.2 at the least"),
        ("mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_1", ".maxProtocolVersion", "error", "nobody could connect"),
        ("mode: SIMPLE, credentialName: a, cipherSuites: [AES128-SHA, NOPE]", ".cipherSuites[1]", "warning", "invalid cipher suite NOPE"),
        ("mode: MUTUAL, credentialName: a, caCrl: /crl", ".caCrl", "error", "would let revoked certificates in"),
        ("mode: MUTUAL, credentialName: a, insecureSkipVerify: true", ".insecureSkipVerify", "warning", "verified all the same"),
        ("mode: SIMPLE, credentialName: a, subjectAltNames: [x]", ".subjectAltNames", "warning", "no client is asked"),
        (
            "mode: MUTUAL, serverCertificate: a, privateKey: b, caCertificates: c, verifyCertificateHash: [ab]",
            ".verifyCertificateHash", "warning", "only of MUTUAL servers with a credentialName",
        ),
    ],
)  # fmt: skip
def test_what_a_gateway_here_takes_otherwise_is_said_at_its_place(tls, said_of, severity, message):
    head = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: "
    found = diagnose(f"{head}{{selector: {{a: b}}, servers: [{{{HTTPS}, tls: {{{tls}}}}}]}}}}\n")
    (mine,) = [one for one in found if f"spec.servers[0].tls{said_of}:" in one.message]
    assert mine.severity == severity
    assert message in mine.message
