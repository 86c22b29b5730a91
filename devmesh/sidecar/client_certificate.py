"""What a peer's certificate says beyond its names: x-forwarded-client-cert's element (Envoy, "HTTP header manipulation"), the hash of its key."""

from __future__ import annotations

import base64
import functools
import hashlib
import ssl
from typing import Protocol
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

OPENSSL_NAMES = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.GIVEN_NAME: "GN",
    NameOID.SURNAME: "SN",
}


class Certified(Protocol):
    """A peer with a certificate (tls.Peer)."""

    @property
    def spiffe_id(self) -> str: ...
    @property
    def certificate_hash(self) -> str: ...
    @property
    def certificate(self) -> bytes: ...


def element(peer: Certified, own: str, details: tuple[str, ...]) -> bytes:
    """`By` is left out where our own certificate has no URI; Subject and URI are there even when they are empty, as in Envoy."""
    return _element(peer.certificate, peer.certificate_hash, peer.spiffe_id, own, details)


@functools.lru_cache(maxsize=1024)
def _element(certificate: bytes, digest: str, spiffe_id: str, own: str, details: tuple[str, ...]) -> bytes:
    parts = [f"By={own}"] if own else []
    parts.append(f"Hash={digest}")
    parsed = x509.load_der_x509_certificate(certificate) if certificate else None
    for detail in details:
        parts += _detail(detail, parsed, certificate, spiffe_id)
    return ";".join(parts).encode()


def _detail(detail: str, parsed: x509.Certificate | None, certificate: bytes, spiffe_id: str) -> list[str]:
    if detail == "cert":
        return [f'Cert="{quote(ssl.DER_cert_to_PEM_cert(certificate), safe="")}"'] if certificate else []
    if detail == "subject":
        return [f'Subject="{parsed.subject.rfc4514_string(OPENSSL_NAMES) if parsed is not None else ""}"']
    if detail == "uri":
        return [f"URI={one}" for one in _names(parsed, x509.UniformResourceIdentifier)] or [f"URI={spiffe_id}"]
    return [f"DNS={one}" for one in _names(parsed, x509.DNSName)]


def _names(parsed: x509.Certificate | None, kind: type[x509.DNSName | x509.UniformResourceIdentifier]) -> list[str]:
    if parsed is None:
        return []
    try:
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(kind)


def spki_of(certificate: bytes) -> str:
    """SHA-256 of the DER of the public key, in base64 (RFC 7469 section 2.4), as `verify_certificate_spki` has it."""
    key = x509.load_der_x509_certificate(certificate).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
