import re
from pathlib import Path

import pytest

import devmesh.compiler
from devmesh.config.devmesh_v1 import Fault
from devmesh.config.effects import WITHOUT_EFFECT, without_effect
from devmesh.config.istio_networking import Abort, Delay, DestinationRule, Server, ServerTLSSettings
from devmesh.config.kinds import KINDS
from devmesh.config.kubernetes import Secret
from tests.config.bookinfo import destination_rule, diagnose
from tests.config.samples import every_field, message_in, models


def test_a_field_without_effect_is_named_with_its_reason_and_place():
    (found,) = diagnose(destination_rule("{connectionPool: {http: {maxConcurrentStreams: 5, http2MaxRequests: 1}}}"))
    assert (found.severity, found.code) == ("warning", "DM0007")
    assert "spec.trafficPolicy.connectionPool.http.maxConcurrentStreams: accepted, has no effect here: " in found.message


def test_what_is_absent_or_has_its_default_is_not_mentioned():
    rule = DestinationRule.model_validate({"host": "a", "trafficPolicy": {"connectionPool": {"http": {"maxConcurrentStreams": 0}}}})
    assert not list(without_effect(rule))


def test_the_table_names_fields_that_exist():
    assert all(name in model.model_fields for model, name in WITHOUT_EFFECT)


# Refused by check_virtual_service and check_gateway.
# The compiler reads a Fault as it was written (`from`), the runtime ends it (`until`) and holds apps (`pause`).
ANSWERED_ELSEWHERE = {
    (Delay, "exponential_delay"),
    (Abort, "http2_error"),
    (Server, "default_endpoint"),
    (Fault, "from_"),
    (Fault, "until"),
    (Fault, "pause"),
    (ServerTLSSettings, "ca_crl"),
    # Read by way of Secret.pair and Secret.roots.
    (Secret, "data"),
    (Secret, "string_data"),
}


@pytest.mark.parametrize("kind", [one for one in KINDS if one.model is not None], ids=lambda kind: kind.kind)
def test_every_field_is_read_by_the_compiler_or_named_as_without_effect(kind):
    compiler = "\n".join(path.read_text() for path in Path(devmesh.compiler.__file__).parent.glob("*.py"))
    inside = {
        inner for model, name in WITHOUT_EFFECT if (message := message_in(model.model_fields[name].annotation)) for inner in models(message)
    }
    silent = [
        f"{model.__name__}.{name}"
        for model, name, _ in every_field(kind.model)
        if (model, name) not in {*WITHOUT_EFFECT, *ANSWERED_ELSEWHERE}
        and model not in inside
        and not re.search(rf"[.\"]{name}\b", compiler)
    ]
    assert silent == []
