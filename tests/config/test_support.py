from devmesh.config.support import support_diagnostics
from tests.config.bookinfo import load


def test_each_resource_is_judged_by_its_kind():
    loaded = load("""\
        {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}}
        ---
        {apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: b}}
        ---
        {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: c}, spec: {host: c}}
        """)
    assert [[one.severity for one in support_diagnostics(resource)] for resource in loaded.resources] == [["error"], ["warning"], []]
