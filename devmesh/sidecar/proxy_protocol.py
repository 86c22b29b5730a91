"""The PROXY protocol's header ahead of all else that a connection carries, TLS included (HAProxy's proxy-protocol.txt, versions 1 and 2).

As Envoy's upstream_proxy_protocol transport socket: the addresses are the downstream connection's, HTTP or not (asked of Envoy 1.40).
"""

from __future__ import annotations

import asyncio
import ipaddress

from devmesh.sidecar.seam import Handler, as_protocol

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2
PROXY, TCP4, TCP6 = 0x21, 0x11, 0x21


def header(version: int, remote: str, local: str) -> bytes:
    """Both are `address:port`."""
    (source, source_port), (destination, destination_port) = _parsed(remote), _parsed(local)
    if source.version != destination.version:  # one family for both
        source, destination = _as_ipv6(source), _as_ipv6(destination)
    if version == 1:
        return f"PROXY TCP{source.version} {source} {destination} {source_port} {destination_port}\r\n".encode()
    addresses = source.packed + destination.packed + source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
    return SIGNATURE + bytes((PROXY, TCP4 if source.version == 4 else TCP6)) + len(addresses).to_bytes(2, "big") + addresses


def _parsed(address: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = address.rpartition(":")
    return ipaddress.ip_address(host.strip("[]")), int(port)


def _as_ipv6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return address if address.version == 6 else ipaddress.IPv6Address(f"::ffff:{address}")


class Preface(Handler):
    """Writes the header, then is no more. Without a downstream connection (mirrors) the addresses are this one's own."""

    def __init__(self, inner: Handler, version: int, source: tuple[str, str] | None) -> None:
        self._inner, self._version, self._source = inner, version, source

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        remote, local = self._source or tuple(_text(transport.get_extra_info(name)) for name in ("sockname", "peername"))
        transport.write(header(self._version, remote, local))  # type: ignore[attr-defined] # a socket transport
        transport.set_protocol(as_protocol(self._inner))
        self._inner.connection_made(transport)


def _text(name: tuple[str, int]) -> str:
    return f"{name[0]}:{name[1]}"
