"""Where a redirected connection was going (Envoy's original_dst listener filter; Linux netfilter, SO_ORIGINAL_DST)."""

from __future__ import annotations

import socket
import struct

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv6/ip6_tables.h) has the same number
SOL_IPV6 = 41
SOCKADDR_IN, SOCKADDR_IN6 = 16, 28  # bytes


def original_destination(sock: socket.socket) -> tuple[str, int] | None:
    """Address and port before the redirect; None when the connection was not redirected.

    A dual-stack socket's IPv4 connections have IPv6 sockets and an IPv4 original destination, so both questions are asked.
    """
    if sock.family == socket.AF_INET6:
        return _ask_ipv6(sock) or _ask_ipv4(sock)
    return _ask_ipv4(sock)


def _ask_ipv4(sock: socket.socket) -> tuple[str, int] | None:
    try:
        raw = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, SOCKADDR_IN)
    except OSError:
        return None
    port, address = struct.unpack_from("!2xH4s", raw)
    return socket.inet_ntop(socket.AF_INET, address), port


def _ask_ipv6(sock: socket.socket) -> tuple[str, int] | None:
    try:
        raw = sock.getsockopt(SOL_IPV6, SO_ORIGINAL_DST, SOCKADDR_IN6)
    except OSError:
        return None
    port, address = struct.unpack_from("!2xH4x16s", raw)
    return socket.inet_ntop(socket.AF_INET6, address), port
