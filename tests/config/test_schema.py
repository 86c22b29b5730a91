import pytest

from devmesh.config.istio_networking import VirtualService
from devmesh.config.schema import fields_at, suggest, validate
from devmesh.config.yaml import Document


def messages(spec):
    return [one.message for one in validate(Document(spec, "a.yaml"), VirtualService, spec)[1]]


def test_the_fields_of_a_place_are_found_through_lists_and_maps():
    assert fields_at(VirtualService, ("http", 0, "match", 1, "headers", "x")) == ["exact", "prefix", "regex"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"http": [{"timeout": True}]}, "spec.http[0].timeout: true is not a duration"),
        ({"http": {}}, "spec.http must be a list, not a mapping"),
        ({"hosts": [1]}, "spec.hosts[0] must be text, not 1"),
        ({"http": [None]}, "spec.http[0] must be a mapping, not nothing"),
        ({"http": [{"match": [{"ignoreUriCase": "true"}]}]}, "spec.http[0].match[0].ignoreUriCase must be true or false"),
        ({"http": [{"match": [{"port": -1}]}]}, "spec.http[0].match[0].port: must be greater than or equal to 0, not -1"),
        ({"http": [{"match": [{"headers": {"a": None}}]}]}, "spec.http[0].match[0].headers.a must be a mapping, not nothing"),
        ({"http": [{"route": [{"weight": 1.5}]}]}, "spec.http[0].route[0].weight must be a whole number, not 1.5"),
        (
            {"http": [{"match": [{"uri": {"exact": "/", "prefix": "/"}}]}]},
            "spec.http[0].match[0].uri: only one of exact, prefix may be set",
        ),
    ],
)
def test_each_kind_of_mistake_is_said_in_words(spec, message):
    (found,) = messages(spec)
    assert found.startswith(message)


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing():
    spec = {"http": [{"route": [{"destination": {"host": "a", "port": {"number": 80.0}}, "weight": 1.0}]}]}
    found, diagnostics = validate(Document(spec, "a.yaml"), VirtualService, spec)
    assert diagnostics == []
    assert found.http[0].route[0].destination.port.number == 80


def test_a_suggestion_is_made_only_for_something_close():
    assert suggest("Timeout", ["timeout", "retries"]) == 'did you mean "timeout"?'
    assert suggest("banana", ["timeout", "retries"]) is None
