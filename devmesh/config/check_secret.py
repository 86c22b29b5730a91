"""What Kubernetes refuses of a Secret, and what no TLS library could use; a value is never quoted."""

from devmesh.config.checks import Checker
from devmesh.config.kubernetes import OPAQUE, TLS_TYPE, Secret


def check_secret(check: Checker, spec: Secret) -> None:
    if spec.type == TLS_TYPE:
        for name in ("tls.crt", "tls.key"):
            if name not in spec.names():
                check.error(_place(spec), f'"{name}" is required in a Secret of type {TLS_TYPE}')
    elif spec.type not in (OPAQUE, ""):
        check.no_effect("type", f"only {TLS_TYPE} and {OPAQUE} are used, as the credentialName of a Gateway or a DestinationRule")
        return
    if spec.is_sealed():
        return
    pair, roots = spec.pair(), spec.roots()
    if pair is None and roots is None and spec.type != TLS_TYPE:
        check.no_effect(
            _place(spec), "it has neither tls.crt with tls.key nor ca.crt (nor cert with key, nor cacert), the only names that are read"
        )
    if pair is not None:
        _check_pair(check, spec, *pair)
    if roots is not None:
        _check_certificates(check, spec, roots, "the CA certificate")


def _place(spec: Secret) -> str:
    return "data" if spec.data or not spec.string_data else "stringData"


def _check_pair(check: Checker, spec: Secret, certificate: bytes, key: bytes) -> None:
    """A chain and the key of its first certificate."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - only Secrets need it

    found = _check_certificates(check, spec, certificate, "the certificate")
    try:
        loaded = load_pem_private_key(key, password=None)
    except TypeError:
        check.error(_place(spec), "the private key is encrypted, and nobody could give its pass phrase", "openssl pkey -in KEY -out PLAIN")
        return
    except ValueError:
        check.error(_place(spec), "the private key is not a PEM private key")
        return
    if found is not None and loaded.public_key() != found:
        check.error(_place(spec), "the private key is not the certificate's")


def _check_certificates(check: Checker, spec: Secret, text: bytes, what: str) -> object | None:
    """The first one's public key."""
    from cryptography import x509  # noqa: PLC0415 - as above

    try:
        return x509.load_pem_x509_certificates(text)[0].public_key()
    except ValueError:
        check.error(_place(spec), f"{what} is not PEM")
        return None
