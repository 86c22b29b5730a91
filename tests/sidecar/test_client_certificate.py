"""x-forwarded-client-cert as Envoy writes it; the square holds it against Envoy's own (test_gateway_tls.py)."""

import hashlib
import ssl
import subprocess
from urllib.parse import unquote

from devmesh.sidecar.client_certificate import element, spki_of
from devmesh.sidecar.tls import Peer
from tests.support.web_certificates import WebCa

PEM = WebCa().pair("client.example", "other.example").certificate
DER = ssl.PEM_cert_to_DER_cert(PEM)
CLIENT = Peer(certificate_hash=hashlib.sha256(DER).hexdigest(), names=("client.example",), certificate=DER)
ALL = ("cert", "subject", "uri", "dns")


def parts(own, details):
    return element(CLIENT, own, details).decode().split(";")


def test_it_says_what_the_listener_wants_to_know_and_no_more():
    assert parts("spiffe://me", ()) == ["By=spiffe://me", f"Hash={CLIENT.certificate_hash}"]
    assert parts("", ("subject",)) == [f"Hash={CLIENT.certificate_hash}", 'Subject="CN=client.example,O=Example\\, Inc."']


def test_all_details_stand_in_envoys_order_and_the_certificate_reads_back():
    digest, certificate, subject, *rest = parts("", ALL)
    assert digest.startswith("Hash=")
    assert unquote(certificate.removeprefix('Cert="').removesuffix('"')) == PEM
    assert subject.startswith("Subject=")
    assert rest == ["URI=", "DNS=client.example", "DNS=other.example"]


def test_a_keys_hash_is_that_of_openssl():
    der = subprocess.run(["openssl", "x509", "-pubkey", "-noout"], input=PEM, capture_output=True, text=True, check=True).stdout
    key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=der.encode(), capture_output=True, check=True).stdout
    hashed = subprocess.run(["openssl", "dgst", "-sha256", "-binary"], input=key, capture_output=True, check=True).stdout
    assert spki_of(DER) == subprocess.run(["openssl", "base64"], input=hashed, capture_output=True, check=True).stdout.decode().strip()
