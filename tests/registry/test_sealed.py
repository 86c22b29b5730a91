"""Secrets in the registry: readable with the mesh's token only, and the same for the same Secret."""

import pytest

from devmesh.config.model import ResourceKey
from devmesh.errors import DevmeshError
from devmesh.registry.sealed import seal, unseal

KEY = ResourceKey("", "Secret", "istio-system", "a")
DOCUMENT = {"kind": "Secret", "type": "Opaque", "data": {"tls.key": "aGlkZGVu"}, "stringData": {"tls.crt": "hidden"}}


def test_only_the_values_are_sealed_and_the_token_opens_them():
    sealed = seal(KEY, DOCUMENT, "token")
    assert "hidden" not in str(sealed)
    assert "aGlkZGVu" not in str(sealed)
    assert sealed["type"] == "Opaque"
    assert unseal(KEY, sealed, "token") == DOCUMENT


def test_the_same_secret_is_sealed_alike_and_twice_is_as_once():
    sealed = seal(KEY, DOCUMENT, "token")
    assert seal(KEY, DOCUMENT, "token") == sealed
    assert seal(KEY, sealed, "token") == sealed


def test_another_token_or_another_place_opens_nothing():
    sealed = seal(KEY, DOCUMENT, "token")
    with pytest.raises(DevmeshError, match="another mesh"):
        unseal(KEY, sealed, "other")
    with pytest.raises(DevmeshError):
        unseal(ResourceKey("", "Secret", "default", "a"), sealed, "token")
    with pytest.raises(DevmeshError):
        unseal(KEY, {"data": {"moved": sealed["data"]["tls.key"]}}, "token")


def test_what_is_no_secret_stays_as_it_is():
    document = {"kind": "Gateway", "data": {"a": "b"}}
    assert seal(ResourceKey("networking.istio.io", "Gateway", "default", "a"), document, "token") == document
