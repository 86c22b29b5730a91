import subprocess

import orjson
import pytest

from devmesh.config.istio_networking import Destination, Gateway, HTTPRoute, VirtualService
from devmesh.config.kinds import KINDS
from devmesh.config.loader import load_text
from tests.config.samples import every_field, sample
from tests.support.require import tool

FULL = [one for one in KINDS if one.model is not None]


def document(kind):
    fields = sample(kind.model)
    body = {"apiVersion": f"{kind.group}/{kind.versions[0]}".removeprefix("/"), "kind": kind.kind, "metadata": {"name": "all"}}
    return orjson.dumps(body | (fields if kind.flat else {"spec": fields})).decode()


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.kind)
def test_every_field_of_every_message_is_read(kind):
    loaded = load_text(document(kind), "all.json")
    assert not loaded.diagnostics

    def given(model):
        left_out = {name for group in model.oneofs for name in group[1:]}
        assert model.model_fields_set == set(type(model).model_fields) - left_out

    given(loaded.resources[0].spec)


@pytest.mark.parametrize("kind", [one for one in FULL if one.group], ids=lambda kind: kind.kind)
def test_istio_knows_every_field_we_do(kind, tmp_path):
    path = tmp_path / "all.json"
    path.write_text(document(kind))
    done = subprocess.run([tool("istio", "istioctl"), "validate", "-f", path], capture_output=True, text=True, check=False)
    assert "unknown field" not in done.stdout + done.stderr
    assert "proto" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.kind)
def test_json_names_are_istios(kind):
    for model, name, json_name in every_field(kind.model):
        assert model.model_fields[name].alias == json_name


def test_snake_case_is_for_code_only():
    assert HTTPRoute(route=(), cors_policy=None).cors_policy is None
    text = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a], http: [{cors_policy: {}}]}}"
    assert load_text(text, "a").errors[0].hint == 'did you mean "corsPolicy"?'


def test_absent_is_none_for_messages_and_zero_for_scalars_as_in_proto3():
    assert VirtualService().http == ()
    assert HTTPRoute().timeout is None
    assert Destination().subset == ""
    assert Gateway().selector == {}
