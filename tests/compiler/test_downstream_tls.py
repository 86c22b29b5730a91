import pytest

from devmesh.compiler.downstream_tls import server_tls
from devmesh.config.istio_networking import ServerTLSSettings


def common(**settings):
    return server_tls(ServerTLSSettings.model_validate(settings), http=True)["typed_config"]["common_tls_context"]


def test_ciphers_that_nobody_knows_are_left_out_and_none_stands_twice():
    suites = ["AES128-SHA", "NOPE", "AES128-SHA", "AES256-SHA"]
    found = common(mode="SIMPLE", credentialName="a", cipherSuites=suites)
    assert found["tls_params"] == {"cipher_suites": ["AES128-SHA", "AES256-SHA"]}


@pytest.mark.parametrize(("mode", "required"), [("SIMPLE", False), ("OPTIONAL_MUTUAL", False), ("MUTUAL", True), ("ISTIO_MUTUAL", True)])
def test_who_must_show_a_certificate(mode, required):
    settings = {"mode": mode} | ({} if mode == "ISTIO_MUTUAL" else {"credentialName": "a"})
    found = server_tls(ServerTLSSettings.model_validate(settings), http=True)["typed_config"]
    assert found["require_client_certificate"] is required
    assert ("combined_validation_context" in found["common_tls_context"]) is (mode != "SIMPLE")
