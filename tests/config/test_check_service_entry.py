import pytest

from tests.config.bookinfo import diagnose

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"
STATIC = "resolution: STATIC, endpoints: [{address: 10.0.0.1}]"


def found(spec):
    head = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, spec: "
    return [(one.severity, one.code, one.message) for one in diagnose(f"{head}{{{spec}}}}}\n")]


@pytest.mark.parametrize(
    "spec",
    [
        f"hosts: [a.example], {HTTP}, resolution: DNS",
        f"hosts: [a.example, b.example], {HTTP}, {STATIC}",
        f"hosts: ['*.example'], {HTTP}, resolution: NONE",
        f"hosts: [a.example], addresses: [10.7.0.1], {HTTP}, {STATIC}, exportTo: ['.']",
    ],
)
def test_what_istio_takes_is_taken(spec):
    assert found(spec) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (f"{HTTP}, resolution: DNS", "at least one host"),
        (f"hosts: ['*'], {HTTP}", "invalid host *"),
        ("hosts: [a.example], resolution: DNS", "at least one port"),
        ("hosts: [a.example], ports: [{number: 0, name: http, protocol: HTTP}], resolution: DNS", "must be in the range"),
        ("hosts: [a.example], ports: [{number: 80, name: http, protocol: HTP}], resolution: DNS", 'unsupported protocol "HTP"'),
        (
            "hosts: [a.example], ports: [{number: 80, name: a, protocol: HTTP}, {number: 80, name: b, protocol: HTTP}], resolution: DNS",
            "already defined",
        ),
        (
            "hosts: [a.example, b.example], ports: [{number: 80, name: a, protocol: TCP}], resolution: DNS",
            "multiple hosts provided with non-HTTP",
        ),
        (f"hosts: [a.example], {HTTP}, resolution: STATIC", "endpoints must be provided"),
        (f"hosts: [a.example], {HTTP}, resolution: STATIC, endpoints: [{{address: b.example}}]", "is not a valid IP"),
        (
            f"hosts: [a.example], {HTTP}, resolution: STATIC, endpoints: [{{address: 10.0.0.1, ports: {{nope: 1}}}}]",
            "endpoint port nope is not defined",
        ),
        (f"hosts: [a.example], {HTTP}, resolution: NONE, endpoints: [{{address: 10.0.0.1}}]", "no endpoints should be provided"),
        (f"hosts: ['*.example'], {HTTP}, resolution: DNS", "hosts must be FQDN"),
        (f"hosts: [a.example], {HTTP}, resolution: DNS, endpoints: [{{address: 'unix:///a'}}]", "unix domain socket"),
        (f"hosts: [a.example], addresses: [nope], {HTTP}, {STATIC}", "neither an IP address nor a CIDR"),
    ],
)
def test_what_istio_refuses_is_refused(spec, says):
    assert [severity for severity, _, message in found(spec) if says in message] == ["error"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (f"hosts: [a.example], addresses: [10.7.0.0/16], {HTTP}, {STATIC}", "ranges of addresses"),
        ("hosts: [a.example], ports: [{number: 80, name: a}], resolution: DNS", "plain TCP"),
        (f"hosts: [a.example], {HTTP}, resolution: DYNAMIC_DNS", "left out"),
        (f"hosts: [a.example], {HTTP}, resolution: DNS, subjectAltNames: [x]", "tls.subjectAltNames"),
        (f"hosts: [a.example], {HTTP}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}", "services already"),
    ],
)
def test_what_means_nothing_here_is_named(spec, says):
    assert [(severity, code) for severity, code, message in found(spec) if says in message] == [("warning", "DM0007")]
