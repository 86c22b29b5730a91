"""Which Secrets leave the control plane: those that a gateway's own configuration names, to that gateway."""

import base64

import pytest

from devmesh.compiler import compile_proxy
from tests.compiler.test_gateways import gateway, server
from tests.compiler.worlds import world


def secret(name, *keys, namespace="istio-system"):
    values = ", ".join(f"{key}: {name}/{key}" for key in keys)
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData: {{{values}}}"


def mutual(more=""):
    return gateway("g", server(443, "https", "HTTPS", "a.example", f"mode: MUTUAL, credentialName: a{more}"))


def served(*yaml, workload="gate-v1"):
    return {one["name"]: one for one in compile_proxy(world(*yaml), workload).snapshot.resources["secrets"]}


def text(source):
    return base64.b64decode(source["inline_bytes"]).decode()


def test_the_gateway_gets_the_pair_and_the_roots_that_it_names_and_nothing_else():
    found = served(mutual(), secret("a", "tls.crt", "tls.key", "ca.crt"), secret("b", "tls.crt", "tls.key"))
    assert list(found) == ["kubernetes://a", "kubernetes://a-cacert"]
    pair = found["kubernetes://a"]["tls_certificate"]
    assert (text(pair["certificate_chain"]), text(pair["private_key"])) == ("a/tls.crt", "a/tls.key")
    assert text(found["kubernetes://a-cacert"]["validation_context"]["trusted_ca"]) == "a/ca.crt"


def test_no_other_workload_gets_any():
    yaml = (mutual(), secret("a", "tls.crt", "tls.key", "ca.crt"))
    assert [served(*yaml, workload=name) for name in ("web-v1", "api-v1")] == [{}, {}]


@pytest.mark.parametrize(
    "other",
    [secret("a", "tls.crt", "tls.key", namespace="default"), secret("a", "ca.crt"), secret("a", "tls.crt")],
    ids=["namespace", "roots", "half"],
)
def test_a_secret_elsewhere_or_without_a_pair_is_not_served_as_one(other):
    assert "kubernetes://a" not in served(mutual(), other)


def test_a_secret_of_its_own_for_the_roots_is_looked_for_first():
    found = served(mutual(), secret("a", "tls.crt", "tls.key", "ca.crt"), secret("a-cacert", "cacert"))
    assert text(found["kubernetes://a-cacert"]["validation_context"]["trusted_ca"]) == "a-cacert/cacert"
    named = served(mutual(", caCertCredentialName: b"), secret("a", "tls.crt", "tls.key"), secret("b", "tls.crt", "tls.key", "ca.crt"))
    assert text(named["kubernetes://b"]["validation_context"]["trusted_ca"]) == "b/ca.crt"


def test_a_changed_secret_is_another_version_and_no_listing_shows_it():
    one, other = (
        compile_proxy(world(mutual(), secret("a", *keys)), "gate-v1").snapshot for keys in (("tls.crt", "tls.key"), ("cert", "key"))
    )
    assert one.version != other.version
    assert "secrets" not in one.to_json()
