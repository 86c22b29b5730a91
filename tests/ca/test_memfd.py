import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from devmesh.ca.authority import Authority, pem_of_key
from devmesh.ca.client import certificate_request
from devmesh.ca.identity import SpiffeId
from devmesh.ca.memfd import load_pair


def test_a_pair_is_loaded_and_leaves_no_descriptor(tmp_path):
    key, spiffe_id = ec.generate_private_key(ec.SECP256R1()), SpiffeId.of("default", "x")
    chain = Authority.open(tmp_path).sign(certificate_request(key, spiffe_id), spiffe_id).certificate_chain
    before = set(Path("/proc/self/fd").iterdir())
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "".join(chain), pem_of_key(key))
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)
