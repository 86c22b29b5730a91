import base64

import pytest

from devmesh.sidecar.config import ConfigError
from tests.sidecar.snapshots import parsed


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_a_pair_and_roots_are_read_from_the_form_that_sds_has():
    pair = {"certificate_chain": {"inline_bytes": b64("CHAIN")}, "private_key": {"inline_string": "KEY"}}
    roots = {"trusted_ca": {"inline_bytes": b64("ROOTS")}}
    secrets = [{"name": "a", "tls_certificate": pair}, {"name": "a-cacert", "validation_context": roots}]
    assert parsed(secrets=secrets).secrets == {
        "a": {"certificate_chain": "CHAIN", "private_key": "KEY"},
        "a-cacert": {"trust_bundle": "ROOTS"},
    }


def test_what_was_received_is_kept_without_the_secrets():
    config = parsed(secrets=[{"name": "default", "private_key": "KEY"}], listeners=[])
    assert config.raw == {"version": "1", "listeners": []}


@pytest.mark.parametrize(
    "source", [{"inline_bytes": "!hidden!"}, {"inline_bytes": "aGlkZGVu/w=="}, {"filename": "hidden"}, {"inline_bytes": 7}]
)
def test_an_unreadable_key_is_refused_without_being_quoted(source):
    with pytest.raises(ConfigError) as refused:
        parsed(secrets=[{"name": "kubernetes://a", "tls_certificate": {"private_key": source}}])
    assert str(refused.value) == "kubernetes://a: private_key is not inline PEM"
