"""What a proxy changes in heads that it forwards: hop-by-hop fields, x-forwarded-for, x-forwarded-client-cert."""

from __future__ import annotations

from devmesh.sidecar.config import HttpManager
from devmesh.sidecar.message import Headers, get_header, remove_header, set_header
from devmesh.sidecar.tls import Peer

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"})


def upgrade(pairs: Headers) -> bytes:
    connection = (get_header(pairs, b"connection") or b"").lower()
    return (get_header(pairs, b"upgrade") or b"").lower() if b"upgrade" in connection else b""


def drop_hop_by_hop(pairs: Headers) -> None:
    """RFC 9110 section 7.6.1: connection, what it names, and their kin; `te: trailers` is end to end for gRPC."""
    named = _connection_options(pairs)
    trailers = any(name == b"te" and value.lower() == b"trailers" for name, value in pairs)
    pairs[:] = [pair for pair in pairs if pair[0] not in HOP_BY_HOP and pair[0] not in named]
    if trailers:
        pairs.append((b"te", b"trailers"))


def drop_response_hops(pairs: Headers) -> None:
    named = _connection_options(pairs)
    pairs[:] = [pair for pair in pairs if pair[0] not in (b"connection", b"keep-alive", b"proxy-connection") and pair[0] not in named]


def _connection_options(pairs: Headers) -> set[bytes]:
    return {option.strip().lower() for name, value in pairs if name == b"connection" for option in value.split(b",")}


def append_forwarded_for(pairs: Headers, remote: str) -> None:
    address = remote.rpartition(":")[0].encode()
    given = get_header(pairs, b"x-forwarded-for")
    set_header(pairs, b"x-forwarded-for", given + b"," + address if given else address)


def client_certificate(pairs: Headers, manager: HttpManager, peer: Peer | None, own: str) -> None:
    """x-forwarded-client-cert by forward_client_cert_details; SANITIZE, the default, drops what a client sent."""
    if manager.forward_client_cert == "SANITIZE" or peer is None or not peer.spiffe_id:
        if manager.forward_client_cert not in ("FORWARD_ONLY", "ALWAYS_FORWARD_ONLY"):
            remove_header(pairs, b"x-forwarded-client-cert")
        return
    element = f'By={own};Hash={peer.certificate_hash};Subject="";URI={peer.spiffe_id}'.encode()
    given = get_header(pairs, b"x-forwarded-client-cert")
    if manager.forward_client_cert == "APPEND_FORWARD" and given:
        element = given + b"," + element
    set_header(pairs, b"x-forwarded-client-cert", element)
