"""Secrets as Kubernetes reads them, and that nothing said about one holds a value."""

import base64

import pytest

from devmesh.config.kubernetes import SEALED, Secret
from devmesh.config.loader import load_text


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_plain_text_wins_over_base64_and_a_missing_value_is_empty():
    secret = Secret(data={"a": b64("one"), "b": b64("two")}, string_data={"b": "three"})
    assert [secret.value(name) for name in "abc"] == [b"one", b"three", b""]


@pytest.mark.parametrize(
    ("names", "pair", "roots"),
    [
        (("tls.crt", "tls.key"), (b"tls.crt", b"tls.key"), None),
        (("cert", "key", "tls.crt", "tls.key"), (b"cert", b"key"), None),
        (("tls.crt", "ca.crt"), None, b"ca.crt"),
        (("cacert", "ca.crt"), None, b"cacert"),
    ],
)
def test_certificates_have_the_names_that_istiod_looks_for(names, pair, roots):
    secret = Secret(string_data={name: name for name in names})
    assert (secret.pair(), secret.roots()) == (pair, roots)


@pytest.mark.parametrize(
    ("fields", "line", "says"),
    [
        ("data: {tls.key: '!hidden!'}", 5, "data: tls.key: not base64; write plain text under stringData"),
        ("data: {tls.key: 31337}", 5, "data: tls.key must be text"),
        ("stringData: [hidden]", 5, "stringData: must be a mapping of names to text"),
        ("tipe: hidden", 5, 'unknown field "tipe"'),
        ("type: [hidden]", 5, "type must be text, not a list"),
        ("spec: {}", 5, 'unknown field "spec"'),
    ],
)
def test_a_mistake_is_named_with_its_place_and_without_the_value(fields, line, says):
    loaded = load_text(f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n{fields}\n", "secret.yaml")
    (found,) = loaded.errors
    assert (found.where.line, found.message) == (line, says)
    assert "hidden" not in str(found)
    assert "31337" not in str(found)


def test_a_sealed_value_passes_and_a_secret_does_not_print_its_values():
    secret = Secret(data={"tls.key": f"{SEALED}AAAA"}, string_data={"x": "hidden"})
    assert secret.is_sealed()
    assert "hidden" not in repr(secret)
    assert "AAAA" not in repr(secret)
