"""What a proxy changes in heads that it forwards: hop-by-hop fields, x-forwarded-for, x-forwarded-client-cert, ids, peers' metadata.

Which kinds of names a head has is collected once, since most heads carry nothing of what is looked for here.
"""

from __future__ import annotations

import functools
import ipaddress
import random
import socket
from typing import Final

from devmesh.sidecar.client_certificate import element as certificate_element
from devmesh.sidecar.config import HttpManager
from devmesh.sidecar.message import (
    FRAMING,
    HAS_CERTIFICATE,
    HAS_EXPECT,
    HAS_FORWARDED,
    HAS_HOP,
    HAS_ID,
    HAS_PEER,
    HAS_PROTO,
    HAS_STEERING,
    HAS_TOLD,
    HOP_BY_HOP,
    KEEP,
    PEER_METADATA,
    REQUEST_KINDS,
    RESPONSE_HOPS,
    STEERING,
    TOLD,
    Headers,
    RequestHead,
    ResponseHead,
    get_header,
    kinds,
    remove_header,
    set_header,
)
from devmesh.sidecar.record import Direction, Record
from devmesh.sidecar.tls import Peer

BODILESS_METHODS: Final = frozenset({b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"})
IDS_AT_ONCE: Final = 64
# Of each 128 bits, what version 4 and its variant leave random, and what they are (RFC 9562 section 5.4).
RANDOM_BITS: Final = sum(0xFFFFFFFF_FFFF_0FFF_3FFF_FFFFFFFFFFFF << 128 * number for number in range(IDS_AT_ONCE))
FIXED_BITS: Final = sum(0x00000000_0000_4000_8000_000000000000 << 128 * number for number in range(IDS_AT_ONCE))


def prepare(
    head: RequestHead, record: Record, manager: HttpManager, remote: str, ids: RequestIds, *, client: Peer | None, own: str
) -> bytes:
    """Make a received request head one that may be forwarded; the protocol that it asks to upgrade to, or empty.

    `remote` is the client's `address:port`, `client` its proven identity, `own` our SPIFFE ID.
    """
    given = head.headers
    record.request_headers = given  # as they go on: Envoy's log and tags speak of the request after its edits, too
    has = head.has
    asked = b""
    if has & HAS_HOP:
        asked = upgrade(given)
        drop_hop_by_hop(given)
        has = head.has = kinds(given, REQUEST_KINDS)
    if has & HAS_EXPECT and not manager.proxy_100_continue:
        head.expects = take_expectation(given)
    if has & HAS_STEERING:
        given[:] = [pair for pair in given if pair[0] not in STEERING]
    edge = manager.use_remote_address
    if edge:
        append_forwarded_for(given, remote)
        set_header(given, b"x-forwarded-proto", head.scheme)
        if has & HAS_TOLD:
            given[:] = [pair for pair in given if pair[0] not in TOLD]
        set_header(given, b"x-envoy-external-address", remote.rpartition(":")[0].encode())
    else:
        if not has & HAS_PROTO:
            given.append((b"x-forwarded-proto", b"https" if client is not None else b"http"))
        else:
            _believe(head, get_header(given, b"x-forwarded-proto"))
        if has & HAS_FORWARDED:
            forwarded = joined(given, b"x-forwarded-for")
            set_header(given, b"x-forwarded-for", forwarded)
            record.downstream_remote = last_forwarded(forwarded) or record.downstream_remote
        if has & HAS_TOLD:
            record.target = get_header(given, b"x-envoy-original-path") or record.target  # what the proxy before us was asked for
    record.request_id = _request_id(given, ids, given_one=has & HAS_ID != 0, kept=not edge)
    if client is not None or has & HAS_CERTIFICATE:
        client_certificate(given, manager, client, own)
    if has & HAS_PEER and record.direction is Direction.INBOUND:
        record.peer_metadata = get_header(given, b"x-envoy-peer-metadata") or b""
        given[:] = [pair for pair in given if pair[0] not in PEER_METADATA]
    return asked


def _believe(head: RequestHead, proto: bytes | None) -> None:
    """A proxy before us knows what the client spoke: the request's scheme is that, if it is one."""
    if proto == b"https" or proto == b"http":  # noqa: PLR1714 - a tuple would hide from mypy that it is not None
        head.scheme = proto


def _request_id(pairs: Headers, ids: RequestIds, *, given_one: bool, kept: bool) -> bytes:
    """The client's own where that is kept, else a new one in its place."""
    if not given_one:
        made = ids.next()
        pairs.append((b"x-request-id", made))
        return made
    found = get_header(pairs, b"x-request-id") if kept else None
    if not found:
        found = ids.next()
        set_header(pairs, b"x-request-id", found)
    return found


class RequestIds:
    """Random UUIDs (RFC 9562 section 5.4), from the digits of many at once: the standard library's class takes twenty times the time."""

    __slots__ = ("_digits", "_rng", "_used")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._digits = b""
        self._used = 0  # of them

    def next(self) -> bytes:
        at = self._used
        if at == len(self._digits):
            bits = self._rng.getrandbits(128 * IDS_AT_ONCE) & RANDOM_BITS | FIXED_BITS
            self._digits, at = b"%0*x" % (32 * IDS_AT_ONCE, bits), 0
        self._used = at + 32
        digits = self._digits
        return b"%b-%b-%b-%b-%b" % (
            digits[at : at + 8],
            digits[at + 8 : at + 12],
            digits[at + 12 : at + 16],
            digits[at + 16 : at + 20],
            digits[at + 20 : at + 32],
        )


def upgrade(pairs: Headers) -> bytes:
    """What the client would go over to; h2c is passed over, as by Envoy: the server may keep to HTTP/1.1 (RFC 9110 section 7.8)."""
    connection = (get_header(pairs, b"connection") or b"").lower()
    wanted = (get_header(pairs, b"upgrade") or b"").lower() if b"upgrade" in connection else b""
    return b"" if wanted == b"h2c" else wanted


def drop_hop_by_hop(pairs: Headers) -> None:
    """RFC 9110 section 7.6.1: connection, what it names, and their kin; `te: trailers` is end to end for gRPC.

    Who names what says where the body ends would have the app take it for a request (Envoy says it anew, in chunks).
    """
    named = _connection_options(pairs) - FRAMING
    trailers = b"trailers" in [option.strip() for option in joined(pairs, b"te").split(b",")]
    pairs[:] = [pair for pair in pairs if pair[0] not in HOP_BY_HOP and pair[0] not in named]
    if trailers:
        pairs.append((b"te", b"trailers"))


def needs_length(method: bytes, pairs: Headers) -> bool:
    """Whether a request without a body has to say so (RFC 9110 section 8.6): its method might have one."""
    return (
        method != b"GET"
        and method not in BODILESS_METHODS
        and get_header(pairs, b"content-length") is None
        and get_header(pairs, b"transfer-encoding") is None
    )


def take_expectation(pairs: Headers) -> bool:
    """Whether the client waits for a 100 before it sends its body; we tell it to go on, the app is not asked."""
    waits = (get_header(pairs, b"expect") or b"").lower() == b"100-continue"
    if waits:
        remove_header(pairs, b"expect")
    return waits


def clean_response(head: ResponseHead) -> bytes | None:
    """Take out of a response head what ends here; the peer's metadata, if it sent some."""
    has, pairs = head.has, head.headers
    if has & HAS_HOP:
        pairs[:] = [pair for pair in pairs if pair[0] not in RESPONSE_HOPS]  # what Connection names stays, as in Envoy
    if not has & HAS_PEER:
        return None
    peer = get_header(pairs, b"x-envoy-peer-metadata")
    pairs[:] = [pair for pair in pairs if pair[0] not in PEER_METADATA]
    return peer


def _connection_options(pairs: Headers) -> set[bytes]:
    lines = [value.lower() for name, value in pairs if name == b"connection"]
    return {option.strip() for line in lines if line not in KEEP for option in line.split(b",")}


def append_forwarded_for(pairs: Headers, remote: str) -> None:
    address = remote.rpartition(":")[0].encode()
    given = joined(pairs, b"x-forwarded-for")
    set_header(pairs, b"x-forwarded-for", given + b"," + address if given else address)


def joined(pairs: Headers, name: bytes) -> bytes:
    """A list's lines as one, as Envoy keeps the headers it knows (RFC 9110 section 5.3)."""
    return b",".join([value for key, value in pairs if key == name])


def last_forwarded(forwarded: bytes) -> str:
    """Who asked the proxy before us, `address:0`, as Envoy with no trusted hops takes it from x-forwarded-for; empty when it is no address."""
    return _address(forwarded.rpartition(b",")[2].strip(b" \t"))


@functools.lru_cache(maxsize=256)  # callers are few, and each asks often
def _address(text: bytes) -> str:
    try:
        found = ipaddress.ip_address(text.decode("latin-1"))
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return f"{found}:0"
    scope = f"%{found.scope_id}" if found.scope_id else ""
    return f"[{socket.inet_ntop(socket.AF_INET6, found.packed)}{scope}]:0"  # ::ffff:192.0.2.1 as everybody writes it


def client_certificate(pairs: Headers, manager: HttpManager, peer: Peer | None, own: str) -> None:
    """x-forwarded-client-cert by forward_client_cert_details; SANITIZE, the default, drops what a client sent."""
    if manager.forward_client_cert == "SANITIZE" or peer is None or not peer.certificate_hash:
        if manager.forward_client_cert not in ("FORWARD_ONLY", "ALWAYS_FORWARD_ONLY"):
            remove_header(pairs, b"x-forwarded-client-cert")
        return
    element = certificate_element(peer, own, manager.client_cert_details)
    given = get_header(pairs, b"x-forwarded-client-cert")
    if manager.forward_client_cert == "APPEND_FORWARD" and given:
        element = given + b"," + element
    set_header(pairs, b"x-forwarded-client-cert", element)
