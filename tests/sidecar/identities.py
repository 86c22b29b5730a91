"""SVIDs of devmesh's own CA, as a sidecar holds them."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devmesh.ca.authority import Authority
from devmesh.ca.identity import SpiffeId
from devmesh.sidecar.tls import Credentials


class Identity:
    def __init__(self, credentials: Credentials | None) -> None:
        self.credentials = credentials


def spiffe(account: str) -> str:
    return f"spiffe://cluster.local/ns/default/sa/{account}"


def credentials(authority: Authority, account: str) -> Credentials:
    return signed(authority, SpiffeId.parse(spiffe(account)))


def signed(authority: Authority, spiffe_id: SpiffeId) -> Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    issued = authority.sign(request.public_bytes(serialization.Encoding.PEM).decode(), spiffe_id)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials("".join(issued.certificate_chain), key.private_bytes(*form).decode(), authority.trust_bundle.pem)


def authority(directory: Path, name: str = "ca") -> Authority:
    return Authority.open(directory / name)


def downstream_tls(prefix: str = "spiffe://cluster.local/", *alpn: str) -> dict[str, object]:
    """A listener's transport socket as Istio's mTLS chains have it."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {**_common({"prefix": prefix}, alpn or ("http/1.1",)), "require_client_certificate": True},
    }


def upstream_tls(account: str, *alpn: str) -> dict[str, object]:
    """A cluster's transport socket: the peer must be this service account."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {**_common({"exact": spiffe(account)}, alpn or ("istio",)), "sni": "outbound_.80_._.server"},
    }


def _common(matcher: dict[str, str], alpn: tuple[str, ...]) -> dict[str, object]:
    validation = {
        "default_validation_context": {"match_subject_alt_names": [matcher]},
        "validation_context_sds_secret_config": {"name": "ROOTCA"},
    }
    params = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    context = {
        "tls_params": params,
        "alpn_protocols": list(alpn),
        "tls_certificate_sds_secret_configs": [{"name": "default"}],
        "combined_validation_context": validation,
    }
    return {"common_tls_context": context}
