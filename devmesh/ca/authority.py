"""Root, intermediate and SVIDs: X.509 by `cryptography` (RFC 5280, SPIFFE X509-SVID.md)."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devmesh.ca.identity import SpiffeId

SVID_LIFETIME = timedelta(hours=1)
BACKDATE = timedelta(minutes=2)  # clocks of virtual machines and laptops differ
ROOT_LIFETIME = timedelta(days=3650)
INTERMEDIATE_LIFETIME = timedelta(days=365)
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_secret(path: Path, data: bytes) -> None:
    """Create or replace a file that only its owner can read, from its first byte on."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    temporary.replace(path)


@dataclass(frozen=True, slots=True)
class Issued:
    """Leaf first, then the intermediate; the root is in the bundle only."""

    chain: tuple[str, ...]
    bundle: tuple[str, ...]
    expires: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    root: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    clock: Clock = utc_now

    @staticmethod
    def open(directory: Path, clock: Clock = utc_now) -> Authority:
        """Load the authority kept in `directory`, or make it (0700, keys 0600; the root's key is not kept)."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = [directory / name for name in ("root.pem", "intermediate.pem", "intermediate.key")]
        if all(file.exists() for file in files):
            root, intermediate = (x509.load_pem_x509_certificate(file.read_bytes()) for file in files[:2])
            key = serialization.load_pem_private_key(files[2].read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey) and intermediate.not_valid_after_utc > clock():
                return Authority(root, intermediate, key, clock)
        made = Authority._make(clock)
        write_secret(files[2], key_pem(made.key))
        write_secret(files[0], pem(made.root).encode())
        write_secret(files[1], pem(made.intermediate).encode())
        return made

    @staticmethod
    def _make(clock: Clock) -> Authority:
        now = clock()
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root_name, name = _name("devmesh root CA"), _name("devmesh intermediate CA")
        root = _ca(root_name, root_name, root_key, root_key, now, ROOT_LIFETIME, path_length=1)
        intermediate = _ca(name, root_name, key, root_key, now, INTERMEDIATE_LIFETIME, path_length=0)
        return Authority(root, intermediate, key, clock)

    @property
    def bundle(self) -> tuple[str, ...]:
        return (pem(self.root),)

    def sign(self, csr: x509.CertificateSigningRequest, spiffe_id: SpiffeId) -> Issued:
        """An SVID for the CSR's key; what the CSR asks for otherwise is ignored. Raises ValueError for a bad signature or key."""
        key = csr.public_key()
        if not csr.is_signature_valid:
            raise ValueError("the CSR's signature does not fit its key")
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise ValueError("SVIDs are issued for ECDSA P-256 keys")
        # The SAN alone says who it is; an empty subject makes it critical (RFC 5280 section 4.2.1.6).
        names = [x509.UniformResourceIdentifier(str(spiffe_id))]
        return self._issue(key, x509.Name([]), names, SVID_LIFETIME)

    def serving(self, key: ec.EllipticCurvePrivateKey) -> Issued:
        """The CA's own server certificate for loopback."""
        hosts: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self._issue(key.public_key(), _name("devmesh CA"), hosts, INTERMEDIATE_LIFETIME)

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        names: list[x509.GeneralName] | list[x509.UniformResourceIdentifier],
        lifetime: timedelta,
    ) -> Issued:
        now = self.clock()
        expires = min(now + lifetime, self.intermediate.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.intermediate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(expires)
            .add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Issued((pem(certificate), pem(self.intermediate)), self.bundle, expires)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devmesh"), x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _ca(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta,
    *,
    path_length: int,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
