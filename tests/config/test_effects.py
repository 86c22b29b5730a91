from devmesh.config.effects import WITHOUT_EFFECT, without_effect
from devmesh.config.istio_networking import DestinationRule
from tests.config.bookinfo import destination_rule, diagnose


def test_a_field_without_effect_is_named_with_its_reason_and_place():
    (found,) = diagnose(destination_rule("{connectionPool: {http: {maxConcurrentStreams: 5, http2MaxRequests: 1}}}"))
    assert (found.severity, found.code) == ("warning", "DM0007")
    assert "spec.trafficPolicy.connectionPool.http.maxConcurrentStreams: accepted, has no effect here: " in found.message


def test_what_is_absent_or_has_its_default_is_not_mentioned():
    rule = DestinationRule.model_validate({"host": "a", "trafficPolicy": {"connectionPool": {"http": {"maxConcurrentStreams": 0}}}})
    assert not list(without_effect(rule))


def test_the_table_names_fields_that_exist():
    assert all(name in model.model_fields for model, name in WITHOUT_EFFECT)
