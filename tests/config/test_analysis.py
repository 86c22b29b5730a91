import pytest

from devmesh.config.analysis import analyze, merge
from devmesh.config.model import Diagnostic
from tests.config.bookinfo import ROUTE, diagnose, load, said, topology, virtual_service
from tests.config.cases import ALL
from tests.config.more_cases import MORE
from tests.config.verdicts import errors
from tests.support.require import tool
from tests.support.validation import verdicts

CASES = [*ALL, *MORE]


def test_kubernetes_and_istiod_refuse_exactly_what_we_refuse():
    given = verdicts(tool("istio", "istio-oracle"), [case.document() for case in CASES])
    theirs = {case: bool(one.error) for case, one in zip(CASES, given, strict=True)}
    ours = {case: bool(errors(case)) for case in CASES}
    assert sum(theirs.values()) > 150
    assert {case for case in CASES if ours[case] != theirs[case]} == {case for case in CASES if case.differs}


def test_weights_that_do_not_add_up_to_100_are_a_warning_with_the_shares_istio_gives(tmp_path):
    rule = "{route: [{destination: {host: reviews}, weight: 1}, {destination: {host: ratings}, weight: 2}]}"
    (found,) = diagnose(virtual_service(rule), topology(tmp_path))
    assert (found.severity, found.code) == ("warning", "DM0011")
    assert "the weights add up to 3, not 100" in found.message
    assert "33.3%, 66.7%" in found.message


def test_istios_published_routing_is_clean(tmp_path):
    text = """\
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: reviews}
        spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: reviews}
        spec:
          hosts: [reviews]
          http:
          - match: [{headers: {end-user: {exact: jason}}}]
            route: [{destination: {host: reviews, subset: v2}}]
          - route: [{destination: {host: reviews, subset: v1}}]
        ---
        apiVersion: networking.istio.io/v1
        kind: Gateway
        metadata: {name: bookinfo-gateway}
        spec:
          selector: {istio: ingressgateway}
          servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: bookinfo}
        spec:
          hosts: ["*"]
          gateways: [bookinfo-gateway]
          http: [{match: [{uri: {prefix: /productpage}}], route: [{destination: {host: productpage, port: {number: 9080}}}]}]
        """
    assert said(text, topology(tmp_path)) == []


def test_unsafe_kinds_are_errors_wherever_they_come_from():
    loaded = load("{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {}}")
    assert [(one.severity, one.code) for one in analyze(loaded.resources)] == [("error", "DM0006")]
    assert len(merge([loaded.diagnostics, analyze(loaded.resources)])) == 1


def test_merging_keeps_each_diagnostic_once_and_the_order():
    one, two = (Diagnostic("error", code, None, "") for code in "ab")
    assert merge([[two, one], [one], [two]]) == [two, one]


@pytest.mark.parametrize("where", [True, False])
def test_without_a_topology_nothing_is_said_about_hosts(tmp_path, where):
    found = said(virtual_service(f"{{{ROUTE.replace('reviews', 'nowhere')}}}"), topology(tmp_path) if where else None)
    assert bool(found) is where
