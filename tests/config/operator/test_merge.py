"""`--set` means what it means to istioctl, and documents lie over each other as its do."""

import pytest

from devmesh.config.operator.merge import SetFlag, merged, set_path, steps_of, typed
from devmesh.errors import UsageError


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a.b", ("a", "b")),
        (r"labels.app\.kubernetes\.io/name", ("labels", "app.kubernetes.io/name")),
        ("components.egressGateways[0].enabled", ("components", "egressGateways", 0, "enabled")),
        ("components.egressGateways.[0].enabled", ("components", "egressGateways", 0, "enabled")),
        ("gateways.[name:x].enabled", ("gateways", ("name", "x"), "enabled")),
    ],
)
def test_a_path_is_keys_indices_and_selectors(path, steps):
    assert steps_of(path) == steps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("F", False),
        ("1s", "1s"),
        ("", ""),
        (r"a\,b", "a,b"),
        ("inf", "inf"),
    ],
)
def test_a_value_is_a_number_a_boolean_or_text(text, value):
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_versions_and_environment_variables_stay_text():
    assert SetFlag.parse("tag=1.20").value == "1.20"
    assert SetFlag.parse("meshConfig.defaultConfig.proxyMetadata.A=1").value == "1"
    assert SetFlag.parse("values.pilot.traceSampling=1").value == 1


def test_only_the_first_equals_sign_parts_path_and_value():
    assert SetFlag.parse("a=b=c").value == "b=c"


@pytest.mark.parametrize("flag", ["a", "=1", "a[x]=1", "a[0][1]=1", "[0].a=1", ""])
def test_a_flag_that_is_none_is_a_usage_error_with_an_example(flag):
    with pytest.raises(UsageError) as caught:
        SetFlag.parse(flag)
    assert caught.value.hint.startswith("--set ")


def changed(document, *flags):
    for flag in flags:
        set_path(document, SetFlag.parse(flag))
    return document


def test_flags_make_what_is_missing_and_change_what_is_there():
    assert changed({}, "a.b=1", "a.c[0].name=x", "a.c[0].on=true", "a.c[9].name=y", "a.b=2") == {
        "a": {"b": 2, "c": [{"name": "x", "on": True}, {"name": "y"}]}
    }
    assert changed({"c": [{"name": "x"}, {"name": "y"}]}, "c.[name:y].on=false") == {"c": [{"name": "x"}, {"name": "y", "on": False}]}


@pytest.mark.parametrize(
    ("document", "flag", "words"),
    [
        ({"a": 1}, "a.b=1", "key of something that is no mapping"),
        ({"a": {}}, "a[0]=1", "no list"),
        ({}, "a.[name:x].b=1", "no item has name x"),
    ],
)
def test_a_path_through_something_else_is_said(document, flag, words):
    with pytest.raises(UsageError, match=words):
        changed(document, flag)


def test_mappings_merge_and_lists_are_replaced():
    base = {"a": {"x": 1, "l": [1, 2]}, "b": 1}
    assert merged(base, {"a": {"y": 2, "l": [3]}, "c": {}}) == {"a": {"x": 1, "y": 2, "l": [3]}, "b": 1, "c": {}}
    assert base == {"a": {"x": 1, "l": [1, 2]}, "b": 1}
