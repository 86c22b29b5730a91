"""A CA of one certificate for tests: SPIFFE SVIDs and the contexts made of them."""

import datetime as dt
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = dt.datetime.now(dt.UTC)


def _builder(name, key, issuer):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(minutes=2))
        .not_valid_after(NOW + dt.timedelta(hours=1))
    )


class Authority:
    def __init__(self, name="root"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = _builder(name, self.key, None).add_extension(constraints, critical=True).sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def context(self, spiffe_id, *, server=False):
        """A TLS context that presents this identity and trusts this authority alone; the peer is not named by host."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        leaf = _builder("workload", key, self.certificate.subject).add_extension(names, critical=True).sign(self.key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.pem)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "svid.pem")
            file.write_bytes(
                key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
                + leaf.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(file)
        return context
