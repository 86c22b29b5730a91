"""What every process of a mesh does at its start with keys, certificates and TLS, done once in the one that they are forked from.

OpenSSL and `cryptography` make their tables when first used: done before the fork, their pages are shared and their time is not spent again.
"""

import ssl
from contextlib import suppress

from devmesh.ca.authority import Authority
from devmesh.ca.client import certificate_request, new_key
from devmesh.ca.identity import SpiffeId
from devmesh.ca.memfd import load_pair

NOBODY = SpiffeId("cluster.local", "warm-up")


def warm_up() -> None:
    """Issue a certificate for a key and shake hands with it, in memory; nothing of it is kept."""
    authority = Authority.in_memory()
    issued, key = authority.server_certificate()
    authority.sign(certificate_request(new_key(), NOBODY), NOBODY)
    server, client = (_context(side) for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    load_pair(server, "".join(issued.certificate_chain), key)
    client.load_verify_locations(cadata=authority.trust_bundle.pem)
    _shake_hands(server, client)


def _context(side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Raises ssl.SSLError where it cannot be made."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller, callee = client.wrap_bio(down, up, server_hostname="localhost"), server.wrap_bio(up, down, server_side=True)
    for end in (caller, callee):  # ClientHello; ServerHello to Finished (RFC 8446 section 2)
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    for end in (caller, callee):  # Finished
        end.do_handshake()
