"""Every key is Istio's or an error, every value of its type or an error, each with its place."""

import pytest

from devmesh.config.model import Diagnostic, SourcePosition
from devmesh.config.operator.schema import SPEC, Setting, check, tables


def judged(value):
    return list(check(value, SPEC, "spec", SourcePosition))


def test_every_setting_is_found_with_its_path():
    value = {
        "meshConfig": {"defaultConfig": {"tracing": {"sampling": 5}}},
        "components": {"egressGateways": [{"enabled": True, "label": {"a.b": "c"}}]},
    }
    assert [(one.path, one.value, one.where.file) for one in judged(value)] == [
        ("meshConfig.defaultConfig.tracing.sampling", 5, "spec.meshConfig.defaultConfig.tracing.sampling"),
        ("components.egressGateways[].enabled", True, "spec.components.egressGateways[0].enabled"),
        ("components.egressGateways[].label.a.b", "c", "spec.components.egressGateways[0].label.a.b"),
    ]


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ({"meshConfg": {}}, 'unknown field "spec.meshConfg"', 'did you mean "meshConfig"?'),
        ({"meshConfig": {"access_log_file": ""}}, 'unknown field "spec.meshConfig.access_log_file"', 'did you mean "accessLogFile"?'),
        ({"values": {"global": {"prxy": {}}}}, 'unknown field "spec.values.global.prxy"', 'did you mean "proxy"?'),
        ({"addonComponents": {"grafanna": {"enabled": True}}}, 'unknown addon "grafanna"', 'did you mean "grafana"?'),
        ({"meshConfig": {"enableTracing": "true"}}, 'spec.meshConfig.enableTracing must be true or false, not "true"', None),
        ({"meshConfig": {"accessLogFile": 1}}, "spec.meshConfig.accessLogFile must be text, not 1", None),
        ({"meshConfig": {"proxyListenPort": 1.5}}, "spec.meshConfig.proxyListenPort must be a whole number, not 1.5", None),
        ({"meshConfig": {"connectTimeout": 10}}, 'spec.meshConfig.connectTimeout must be a duration: "10" is not a duration', None),
        ({"meshConfig": {"accessLogEncoding": "JASON"}}, 'spec.meshConfig.accessLogEncoding is "JASON", which is none of TEXT, JSON', 'did you mean "JSON"?'),
        ({"meshConfig": []}, "spec.meshConfig must be a mapping, not a list", None),
        ({"components": {"ingressGateways": {}}}, "spec.components.ingressGateways must be a list, not a mapping", None),
        ({"meshConfig": {"defaultConfig": {"proxyMetadata": {"A": 1}}}}, "spec.meshConfig.defaultConfig.proxyMetadata.A must be text, not 1", None),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_in_words(value, message, hint):
    (found,) = judged(value)
    assert isinstance(found, Diagnostic)
    assert (found.severity, found.hint) == ("error", hint)
    assert found.message.startswith(message)


def test_every_mistake_is_reported_and_null_is_not_given():
    assert [one.message for one in judged({"a": 1, "b": 2, "meshConfig": None})] == ['unknown field "spec.a"', 'unknown field "spec.b"']


def test_a_mesh_config_is_the_same_below_values():
    (found,) = judged({"values": {"meshConfig": {"accessLogFile": "x"}}})
    assert found == Setting("values.meshConfig.accessLogFile", "x", SourcePosition("spec.values.meshConfig.accessLogFile"))


def test_every_type_that_a_field_names_is_there():
    types, enums = tables()

    def names(kind):
        kind = kind[0] if isinstance(kind, list) else kind["*"] if isinstance(kind, dict) else kind
        return [kind] if kind[0] in "@=" else []

    named = [name for fields in types.values() for kind in fields.values() for name in names(kind)]
    assert len(named) > 100
    assert [name for name in named if name[1:] not in (types if name[0] == "@" else enums)] == []
