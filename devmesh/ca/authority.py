"""Root -> intermediate -> SVID, EC P-256 all the way, kept in a directory that only its owner can read."""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devmesh.ca.files import private_directory, write_private
from devmesh.ca.identity import TRUST_DOMAIN, SpiffeId, TrustBundle

ROOT_LIFE = timedelta(days=3650)
INTERMEDIATE_LIFE = timedelta(days=365)
# An intermediate with less than this left is replaced at the next start.
INTERMEDIATE_MARGIN = timedelta(days=30)
SVID_LIFE = timedelta(hours=1)
# istiod's MAX_WORKLOAD_CERT_TTL: what asks for more is refused.
MAX_SVID_LIFE = timedelta(days=90)
SERVER_LIFE = timedelta(hours=24)
# Clocks of two containers may differ; a certificate from the future would be refused.
BACKDATE = timedelta(minutes=2)
# A clock that was ahead when the mesh was made, and is put right, must not leave it with a root from the future.
CA_BACKDATE = timedelta(days=1)

Clock = Callable[[], datetime]
Key = ec.EllipticCurvePrivateKey


def wall_clock() -> datetime:
    return datetime.now(UTC)


class InvalidRequestError(ValueError):
    """A certificate signing request that may not be signed; the message says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """Leaf first, then the intermediate; PEM each."""

    certificate_chain: tuple[str, ...]
    expires: datetime


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: Key


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def pem_of_key(key: Key) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def check_request(pem: str, spiffe_id: SpiffeId) -> ec.EllipticCurvePublicKey:
    """Give the key of a CSR that proves possession of it and asks for this identity or for none."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid = request.is_signature_valid
        names = [
            name for extension in request.extensions if isinstance(extension.value, x509.SubjectAlternativeName) for name in extension.value
        ]
        key = request.public_key()
    except Exception as error:  # cryptography has no common base of what malformed input raises; every one of them is a refusal
        raise InvalidRequestError(f"the CSR cannot be read: {error}") from error
    if not valid:
        raise InvalidRequestError("the CSR's signature does not match its key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidRequestError("the CSR's key must be EC P-256")
    if names and names != [x509.UniformResourceIdentifier(str(spiffe_id))]:
        raise InvalidRequestError(f"the CSR asks for {', '.join(str(name.value) for name in names)}, the caller is {spiffe_id}")
    return key


class Authority:
    """Signs for as long as it lives; `open` brings back the one that was there."""

    def __init__(self, root: x509.Certificate, intermediate: Signer, clock: Clock = wall_clock) -> None:
        self._root = root
        self._intermediate = intermediate
        self._clock = clock

    @classmethod
    def open(cls, directory: Path, clock: Clock = wall_clock) -> "Authority":
        """Load root and intermediate, or make them; an intermediate near its end is replaced under the same root."""
        private_directory(directory)
        root = _load(directory, "root") or _keep(directory, "root", _new_ca("devmesh root CA", None, clock()))
        intermediate = _load(directory, "intermediate")
        if intermediate is None or not _is_usable(intermediate, root, clock()):
            intermediate = _keep(directory, "intermediate", _new_ca("devmesh intermediate CA", root, clock()))
        return cls(root.certificate, intermediate, clock)

    @classmethod
    def in_memory(cls, clock: Clock = wall_clock) -> "Authority":
        """One that nobody will find again."""
        root = _new_ca("devmesh root CA", None, clock())
        return cls(root.certificate, _new_ca("devmesh intermediate CA", root, clock()), clock)

    @property
    def trust_bundle(self) -> TrustBundle:
        return TrustBundle((pem_of(self._root),))

    def sign(self, csr: str, spiffe_id: SpiffeId, life: timedelta = SVID_LIFE) -> Issued:
        """Issue a workload's SVID; InvalidRequestError when the CSR may not be signed, or not for so long."""
        if not timedelta() < life <= MAX_SVID_LIFE:
            raise InvalidRequestError(f"a certificate for {life} is asked for, the most is {MAX_SVID_LIFE}")
        # RFC 5280 section 4.1.2.6: with an empty subject the SAN is critical, which SPIFFE's X509-SVID section 4.1 asks of validators.
        return self._issue(check_request(csr, spiffe_id), [x509.UniformResourceIdentifier(str(spiffe_id))], life)

    def server_certificate(self, host_names: Iterable[str] = ()) -> tuple[Issued, str]:
        """Give the CA's own HTTPS certificate for loopback and these host names, and its private key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        names = [x509.DNSName(name) for name in ("localhost", *host_names)]
        return self._issue(key.public_key(), [*names, *loopback], SERVER_LIFE), pem_of_key(key)

    def _issue(self, key: ec.EllipticCurvePublicKey, names: list[x509.GeneralName], life: timedelta) -> Issued:
        signer = self._intermediate
        now = self._clock()
        expires = min(now + life, signer.certificate.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(x509.Name([]), signer.certificate.subject, key, now - BACKDATE, expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(_authority_key_id(signer), critical=False)
            .sign(signer.key, hashes.SHA256())
        )
        return Issued((pem_of(certificate), pem_of(signer.certificate)), certificate.not_valid_after_utc)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _new_ca(name: str, issuer: Signer | None, now: datetime) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, TRUST_DOMAIN), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    life = INTERMEDIATE_LIFE if issuer else ROOT_LIFE
    builder = (
        _builder(subject, issuer.certificate.subject if issuer else subject, key.public_key(), now - CA_BACKDATE, now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else 1), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        # X509-SVID section 4.2: a signing certificate carries the trust domain's ID, without a path.
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}")]), critical=False)
    )
    if issuer:
        builder = builder.add_extension(_authority_key_id(issuer), critical=False)
    return Signer(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    """X509-SVID section 4.3: signing certificates sign certificates and nothing else, leaves never do."""
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_id(signer: Signer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())


def _load(directory: Path, name: str) -> Signer | None:
    """Give None only when there is nothing; a half or damaged pair raises, because a new root would cut off every workload."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    if not certificate.exists():
        return None
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{key} is not an EC key")
    return Signer(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)


def _keep(directory: Path, name: str, signer: Signer) -> Signer:
    # The certificate last: its presence says that the pair is whole.
    write_private(directory / f"{name}.key", pem_of_key(signer.key).encode())
    write_private(directory / f"{name}.pem", pem_of(signer.certificate).encode())
    return signer


def _is_usable(intermediate: Signer, root: Signer, now: datetime) -> bool:
    ours = intermediate.certificate.issuer == root.certificate.subject
    return ours and intermediate.certificate.not_valid_after_utc - now > INTERMEDIATE_MARGIN
