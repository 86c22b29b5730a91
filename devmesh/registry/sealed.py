"""Secrets in the registry: their values are encrypted with a key that follows from the mesh's token, so that only its holders can read them.

AES-SIV (RFC 5297): the same Secret gives the same bytes, which is how `apply` tells what changed; the resource's key and the value's name are
authenticated with it, so that no value can be moved to another place.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from devmesh.config.kubernetes import SEALED
from devmesh.config.model import ResourceKey
from devmesh.errors import DevmeshError

PARTS = ("data", "stringData")


def seal(key: ResourceKey, document: Mapping[str, Any], token: str) -> dict[str, Any]:
    """The document as the registry may hold it: a Secret with its values encrypted, anything else as it is."""
    return _each(key, document, lambda place, value: value if value.startswith(SEALED) else _seal(value, place, token))


def unseal(key: ResourceKey, document: Mapping[str, Any], token: str) -> dict[str, Any]:
    """The document as it was written. Raises DevmeshError for what another mesh's token sealed."""

    def plain(place: bytes, value: str) -> str:
        return _unseal(key, value, place, token) if value.startswith(SEALED) else value

    return _each(key, document, plain)


def _each(key: ResourceKey, document: Mapping[str, Any], change: Callable[[bytes, str], str]) -> dict[str, Any]:
    out = dict(document)
    if (key.group, key.kind) != ("", "Secret"):
        return out
    for part in PARTS:
        entries = out.get(part)
        if isinstance(entries, dict):
            out[part] = {name: change(f"{key}/{part}/{name}".encode(), str(value)) for name, value in entries.items()}
    return out


def _seal(value: str, place: bytes, token: str) -> str:
    return SEALED + base64.b64encode(_cipher(token).encrypt(value.encode(), [place])).decode()


def _unseal(key: ResourceKey, value: str, place: bytes, token: str) -> str:
    try:
        return _cipher(token).decrypt(base64.b64decode(value.removeprefix(SEALED)), [place]).decode()
    except (InvalidTag, ValueError):
        raise DevmeshError(f"{key} was encrypted for another mesh", "apply it again") from None


@functools.lru_cache(maxsize=4)
def _cipher(token: str) -> AESSIV:
    return AESSIV(HKDF(SHA256(), 64, None, b"devmesh secrets").derive(token.encode()))
