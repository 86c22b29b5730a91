"""Each setting that Istio knows does something here, or is named with a reason; none is dropped in silence."""

import pytest

from devmesh.config.model import SourcePosition
from devmesh.config.operator.effects import AS_IT_IS, DEFAULT_REASON, HONOURED, without_effect
from devmesh.config.operator.merge import SetFlag, set_path
from devmesh.config.operator.schema import SPEC, Setting, tables
from devmesh.config.operator.settings import choose

HERE = SourcePosition("values.yaml", 3, 5)
SAMPLES = {"bool": False, "string": "devmesh", "int": 7, "number": 7.0, "duration": "7s", "any": {"a": 1}}


def leaves(kind=SPEC, path="", seen=()):
    """Every path that Istio knows, messages that hold themselves left out."""
    if isinstance(kind, list):
        yield from leaves(kind[0], f"{path}[]", seen)
    elif isinstance(kind, dict):
        keys = ("prometheus", "grafana", "jaeger", "kiali") if path == "addonComponents" else ("key",)
        for key in keys:
            yield from leaves(kind["*"], f"{path}.{key}", seen)
    elif kind.startswith("@") and kind not in seen:
        for name, inner in tables()[0][kind[1:]].items():
            yield from leaves(inner, f"{path}.{name}" if path else name, (*seen, kind))
    elif not kind.startswith("@"):
        yield path, tables()[1][kind[1:]][-1] if kind.startswith("=") else SAMPLES[kind]


LEAVES = list(leaves())


def test_istio_knows_many_settings():
    assert len(LEAVES) > 1000


def test_each_is_honoured_or_named_with_its_place():
    for path, value in LEAVES:
        found = without_effect(Setting(path, value, HERE))
        honoured = HONOURED.fullmatch(path.replace("values.meshConfig.", "meshConfig.", 1))
        fits = value in AS_IT_IS.get(path.replace("values.meshConfig.", "meshConfig.", 1), ())
        assert (found is None) == bool(honoured or fits), path
        if found is not None:
            assert (found.severity, found.where) == ("warning", HERE)
            assert path.replace("[]", "") in found.message


# One value for each setting that is said to be honoured, unlike what `default` says.
CHANGES = (
    "profile=demo", "meshConfig.accessLogEncoding=JSON", "meshConfig.enableTracing=false", "meshConfig.connectTimeout=3s",
    "meshConfig.defaultConfig.tracing.sampling=7", "meshConfig.defaultHttpRetryPolicy.attempts=7",
    "meshConfig.defaultHttpRetryPolicy.perTryTimeout=7s", "meshConfig.defaultHttpRetryPolicy.retryOn=5xx",
    "meshConfig.defaultHttpRetryPolicy.backoff=7s", "meshConfig.defaultHttpRetryPolicy.retryIgnorePreviousHosts=false",
    "values.pilot.traceSampling=7", "components.ingressGateways[0].enabled=false", "components.egressGateways[0].enabled=true",
    "values.gateways.istio-egressgateway.enabled=true", "addonComponents.prometheus.enabled=true", "addonComponents.grafana.enabled=true",
    "meshConfig.accessLogFile=/dev/stdout", "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY", "values.profile=demo",
)  # fmt: skip


@pytest.mark.parametrize("flag", [*CHANGES, *(f"values.{flag}" for flag in CHANGES if flag.startswith("meshConfig."))])
def test_what_is_honoured_changes_what_a_runtime_is_told(flag):
    before, after = choose("default").to_json(), choose(None, (), [flag], "default").to_json()
    del before["operator"], after["operator"]
    assert before != after
    assert choose(None, (), [flag], "default").diagnostics == ()


def test_the_list_of_what_is_honoured_has_a_change_for_each():
    known = [path for path, _ in LEAVES if HONOURED.fullmatch(path)]
    tried = {flag.partition("=")[0].replace("[0]", "[]") for flag in CHANGES}
    # The one that means something in profile `remote` only (test_settings).
    tried |= {"values.global.remotePilotAddress"}
    # Switches of one thing: refused when off, or on already.
    tried |= {"components.base.enabled", "components.pilot.enabled", "values.gateways.istio-ingressgateway.enabled"}
    assert sorted(set(known) - tried) == []


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("values.global.proxy.resources.requests.cpu=10m", "Kubernetes' business"),
        ("values.global.hub=example", "compose/images.yaml"),
        ("meshConfig.trustDomain=example.org", "cluster.local"),
        ("meshConfig.accessLogFile=/tmp/log", "devmesh logs --access"),
        ("meshConfig.outboundTrafficPolicy.mode=ALLOW_ANY_DYNAMIC_DNS", "taken as ALLOW_ANY"),
        ("components.ingressGateways[0].name=mine", "this one is not made"),
        ("values.global.proxy.excludeOutboundPorts=80\\,81", "traffic.sidecar.istio.io"),
        ("addonComponents.kiali.enabled=true", "does not exist here"),
        ("meshConfig.dnsRefreshRate=5s", DEFAULT_REASON),
    ],
)
def test_the_reason_says_why(flag, words):
    (found,) = choose("demo", (), [flag]).diagnostics
    assert words in found.message
    assert found.where == SourcePosition(f"--set {flag.partition('=')[0]}")


def test_a_document_of_samples_is_what_the_schema_takes():
    """So that the samples above are values that a user could give."""
    for path, value in LEAVES:
        if isinstance(value, dict) or "key" in path:
            continue
        document = {}
        set_path(document, SetFlag(path, SetFlag.parse(f"{path.replace('[]', '[0]')}=1").steps, value))
        assert document
