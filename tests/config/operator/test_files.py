"""A file given with -f is told by its content; what is neither compose file nor settings is an error with its place."""

import pytest

from devmesh.config.operator.files import read_settings, sort_files
from devmesh.errors import DevmeshError

OPERATOR = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: minimal}\n"


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_compose_file_an_operator_and_values_are_told_apart(tmp_path):
    compose = written(tmp_path, "anything.yaml", "services: {web: {image: x}}\n")
    operator = written(tmp_path, "mesh.yaml", OPERATOR)
    values = written(tmp_path, "values.yaml", "meshConfig: {accessLogFile: /dev/stdout}\nprofile: demo\n")
    found, settings = sort_files([operator, compose, values])
    assert found == compose
    assert [(one.kind, one.profile) for one in settings] == [("@IstioOperatorSpec", "minimal"), ("@values.Values", "demo")]
    assert settings[1].value == {"values": {"meshConfig": {"accessLogFile": "/dev/stdout"}, "profile": "demo"}}


@pytest.mark.parametrize(
    "text", ["services: {}\n", "include: [a.yaml]\n", "name: shop\nnetworks: {a: {}}\n", "x-a: 1\nservices: {a: {}}\n"]
)
def test_what_compose_would_read_is_a_compose_file(tmp_path, text):
    assert read_settings(written(tmp_path, "a.yaml", text)) is None


def test_an_operator_may_have_no_spec(tmp_path):
    settings = read_settings(written(tmp_path, "a.yaml", OPERATOR.replace("spec: {profile: minimal}\n", "spec:\n")))
    assert (settings.value, settings.profile) == ({}, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("foo: 1\n", 'a.yaml:1:1: neither a compose file nor settings: nobody knows "foo"'),
        ("- a\n", "it is no mapping"),
        ("components: {}\n", 'a.yaml:1:1: "components" belongs to an IstioOperator'),
        ("a: [\n", "cannot be read as YAML"),
        (OPERATOR + "---\n" + OPERATOR, "has 2 documents"),
        (OPERATOR.replace("spec", "specs"), 'a.yaml:3:1: error [IST0106] unknown field "specs"'),
        (OPERATOR.replace("{profile: minimal}", "[a]"), "spec must be a mapping"),
        ("apiVersion: networking.istio.io/v1\nkind: Gateway\nspec: {}\n", "a.yaml:2:1: Gateway of networking.istio.io/v1 is no settings"),
        ("apiVersion: v1\nkind: IstioOperator\nspec: {}\n", "IstioOperator of v1 is no settings"),
    ],
)
def test_what_is_neither_is_an_error_with_its_place(tmp_path, text, words):
    with pytest.raises(DevmeshError) as caught:
        read_settings(written(tmp_path, "a.yaml", text))
    assert words in caught.value.message
    assert caught.value.hint


def test_a_near_miss_is_suggested(tmp_path):
    with pytest.raises(DevmeshError) as caught:
        read_settings(written(tmp_path, "a.yaml", "meshconfig: {}\n"))
    assert caught.value.hint == 'did you mean "meshConfig"?'


def test_a_mesh_has_one_compose_file(tmp_path):
    compose = written(tmp_path, "a.yaml", "services: {}\n")
    with pytest.raises(DevmeshError, match="both compose files"):
        sort_files([compose, compose])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DevmeshError, match="cannot be read: No such file"):
        sort_files([tmp_path / "gone.yaml"])
