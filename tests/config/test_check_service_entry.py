import pytest

from tests.config.bookinfo import diagnose
from tests.config.more_cases import SERVICE_ENTRIES
from tests.config.verdicts import check

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"
STATIC = "resolution: STATIC, endpoints: [{address: 10.0.0.1}]"


def found(spec):
    head = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, spec: "
    return [(one.severity, one.code, one.message) for one in diagnose(f"{head}{{{spec}}}}}\n")]


@pytest.mark.parametrize("case", SERVICE_ENTRIES, ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)


def test_an_entry_that_istio_takes_is_clean():
    assert found(f"hosts: [a.example], addresses: [10.7.0.1], {HTTP}, {STATIC}, exportTo: ['.']") == []


@pytest.mark.parametrize(
    ("labels", "spec", "warned"),
    [
        ("{}", "resolution: NONE, ports: [{number: 6000, name: a, protocol: TCP}]", True),
        ("{}", "resolution: DNS, ports: [{number: 6000, name: a, protocol: TCP}]", False),
        ("{}", "resolution: NONE, ports: [{number: 6000, name: a, protocol: TLS}]", False),
        ("{}", "resolution: NONE, addresses: [10.7.0.1], ports: [{number: 6000, name: a, protocol: TCP}]", False),
        ("{networking.istio.io/enable-autoallocate-ip: 'False'}", "resolution: DNS, ports: [{number: 6000, name: a, protocol: TCP}]", True),
    ],
)
def test_tcp_that_nothing_but_its_port_tells_is_warned_of_as_by_istio(labels, spec, warned):
    head = f"{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a, labels: {labels}}}, spec: "
    found = [one.message for one in diagnose(f"{head}{{hosts: [a.example], {spec}}}}}\n") if "addresses are required" in one.message]
    assert bool(found) is warned


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("hosts: [a.example], ports: [{number: 80, name: a}], resolution: DNS", "plain TCP"),
        (f"hosts: ['*.example'], {HTTP}, resolution: DYNAMIC_DNS", "left out"),
        ("hosts: [a.example], resolution: DNS", "never called"),
        (f"hosts: [a.example], {HTTP}, resolution: STATIC", "answered with 503"),
        (f"hosts: [a.example], {HTTP}, resolution: NONE, workloadSelector: {{labels: {{a: b}}}}", "no workload serves"),
    ],
)
def test_what_means_nothing_here_is_named(spec, says):
    assert [(severity, code) for severity, code, message in found(spec) if says in message] == [("warning", "DM0007")]
