import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from devmesh.ca.authority import Authority, InvalidRequestError
from devmesh.ca.client import certificate_request
from devmesh.ca.identity import SpiffeId
from tests.support import require

REVIEWS = SpiffeId.of("default", "bookinfo-reviews")


def request(spiffe_id=REVIEWS, key=None):
    return certificate_request(key or ec.generate_private_key(ec.SECP256R1()), spiffe_id)


def pem(builder, key):
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def openssl(*arguments, stdin=None):
    command = require.tool("openssl", "openssl")
    return subprocess.run([command, *arguments], input=stdin, capture_output=True, text=True, check=True).stdout


def test_openssl_shows_the_spiffe_id_and_verifies_the_chain(tmp_path):
    authority = Authority.open(tmp_path / "ca")
    leaf, intermediate = authority.sign(request(), REVIEWS).certificate_chain
    text = openssl("x509", "-noout", "-text", stdin=leaf)
    assert f"X509v3 Subject Alternative Name: critical\n                URI:{REVIEWS}" in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    assert "CA:FALSE" in text
    (tmp_path / "leaf.pem").write_text(leaf)
    (tmp_path / "intermediate.pem").write_text(intermediate)
    arguments = ("verify", "-x509_strict", "-CAfile", tmp_path / "ca" / "root.pem", "-untrusted", tmp_path / "intermediate.pem")
    for purpose in ("sslserver", "sslclient"):
        assert openssl(*arguments, "-purpose", purpose, tmp_path / "leaf.pem").endswith("OK\n")


def test_an_svid_lives_an_hour_and_began_two_minutes_ago(tmp_path):
    now = datetime.now(UTC).replace(microsecond=0)
    issued = Authority.open(tmp_path, lambda: now).sign(request(), REVIEWS)
    leaf = x509.load_pem_x509_certificate(issued.certificate_chain[0].encode())
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (now - timedelta(minutes=2), now + timedelta(hours=1))
    assert issued.expires == leaf.not_valid_after_utc


def test_an_svid_lives_as_long_as_it_was_asked_for_and_never_above_the_most(tmp_path):
    now = datetime.now(UTC).replace(microsecond=0)
    authority = Authority.open(tmp_path, lambda: now)
    assert authority.sign(request(), REVIEWS, timedelta(seconds=40)).expires == now + timedelta(seconds=40)
    for life in (timedelta(), timedelta(seconds=-1), timedelta(days=91)):
        with pytest.raises(InvalidRequestError, match="90 days"):
            authority.sign(request(), REVIEWS, life)


def test_a_restart_keeps_root_and_intermediate(tmp_path):
    first = Authority.open(tmp_path).sign(request(), REVIEWS)
    second = Authority.open(tmp_path).sign(request(), REVIEWS)
    assert first.certificate_chain[1] == second.certificate_chain[1]


def test_an_intermediate_near_its_end_is_replaced_under_the_same_root(tmp_path):
    first = Authority.open(tmp_path)
    later = Authority.open(tmp_path, lambda: datetime.now(UTC) + timedelta(days=340))
    assert later.trust_bundle == first.trust_bundle
    assert later.sign(request(), REVIEWS).certificate_chain[1] != first.sign(request(), REVIEWS).certificate_chain[1]


def test_an_svid_never_outlives_its_intermediate(tmp_path):
    now = [datetime.now(UTC)]
    authority = Authority.open(tmp_path, lambda: now[0])
    now[0] += timedelta(days=364, hours=23, minutes=30)
    intermediate = x509.load_pem_x509_certificate(authority.sign(request(), REVIEWS).certificate_chain[1].encode())
    assert authority.sign(request(), REVIEWS).expires == intermediate.not_valid_after_utc


def test_keys_and_directory_are_private(tmp_path):
    Authority.open(tmp_path / "ca")
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()} == {0o600}


def test_a_root_without_its_key_is_an_error_and_not_a_new_root(tmp_path):
    Authority.open(tmp_path)
    (tmp_path / "root.key").unlink()
    with pytest.raises(FileNotFoundError):
        Authority.open(tmp_path)


def test_a_request_for_another_identity_is_refused(tmp_path):
    with pytest.raises(InvalidRequestError, match="asks for"):
        Authority.open(tmp_path).sign(request(SpiffeId.of("default", "ratings")), REVIEWS)


def test_a_request_without_a_name_gets_the_callers(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    csr = pem(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])), key)
    assert Authority.open(tmp_path).sign(csr, REVIEWS).certificate_chain


def test_a_request_whose_signature_is_not_its_keys_is_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    good = x509.load_pem_x509_csr(request(key=key).encode()).public_bytes(serialization.Encoding.DER)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    points = [k.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint) for k in (key.public_key(), other)]
    forged = x509.load_der_x509_csr(good.replace(*points)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(InvalidRequestError, match="signature"):
        Authority.open(tmp_path).sign(forged, REVIEWS)


def test_a_key_of_another_kind_is_refused(tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    csr = pem(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])), key)
    with pytest.raises(InvalidRequestError, match="P-256"):
        Authority.open(tmp_path).sign(csr, REVIEWS)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "\N{SNOWMAN}"])
def test_what_is_no_request_is_refused(tmp_path, text):
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        Authority.open(tmp_path).sign(text, REVIEWS)
