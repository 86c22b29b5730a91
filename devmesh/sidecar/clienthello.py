"""What a ClientHello says before the handshake (RFC 8446 section 4.1.2): SNI and ALPN, as Envoy's tls_inspector reads them."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HELLO = 64 * 1024  # Envoy tls_inspector's maximum
HANDSHAKE, CLIENT_HELLO = 22, 1
SERVER_NAME, ALPN = 0, 16


@dataclass(frozen=True, slots=True)
class ClientHello:
    server_name: str = ""
    application_protocols: tuple[str, ...] = ()


class NotTls(Exception):
    """The bytes are no ClientHello."""


def read_client_hello(data: bytes) -> ClientHello | None:
    """Parse the first TLS records; None while incomplete. Raises NotTls."""
    message = _handshake(data)
    if message is None:
        return None
    try:
        return _parse(message)
    except IndexError as error:
        raise NotTls from error


def _handshake(data: bytes) -> bytes | None:
    """The ClientHello's body, joined over records."""
    body = b""
    position = 0
    while True:
        if len(data) < position + 5:
            return None
        if data[position] != HANDSHAKE or data[position + 1] != 3 or position > MAX_HELLO:
            raise NotTls
        length = int.from_bytes(data[position + 3 : position + 5])
        body += data[position + 5 : position + 5 + length]
        position += 5 + length
        if body and body[0] != CLIENT_HELLO:
            raise NotTls
        if len(body) >= 4 and len(body) >= 4 + int.from_bytes(body[1:4]):
            return body[4 : 4 + int.from_bytes(body[1:4])]


def _parse(body: bytes) -> ClientHello:
    position = 34  # legacy_version, random
    position += 1 + body[position]  # legacy_session_id
    position += 2 + int.from_bytes(body[position : position + 2])  # cipher_suites
    position += 1 + body[position]  # legacy_compression_methods
    end = position + 2 + int.from_bytes(body[position : position + 2])
    position += 2
    server_name = ""
    protocols: tuple[str, ...] = ()
    while position + 4 <= end:
        kind = int.from_bytes(body[position : position + 2])
        length = int.from_bytes(body[position + 2 : position + 4])
        value = body[position + 4 : position + 4 + length]
        if kind == SERVER_NAME and length > 5:
            server_name = value[5 : 5 + int.from_bytes(value[3:5])].decode("ascii", "replace").lower()
        elif kind == ALPN:
            protocols = _alpn(value[2:])
        position += 4 + length
    return ClientHello(server_name, protocols)


def _alpn(value: bytes) -> tuple[str, ...]:
    names = []
    while value:
        names.append(value[1 : 1 + value[0]].decode("ascii", "replace"))
        value = value[1 + value[0] :]
    return tuple(names)
