"""TCP keep-alive as a cluster asks for it (upstream_connection_options.tcp_keepalive), on any socket: dialled here or passed from a pod."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from devmesh.sidecar.config import Keepalive


def keep_alive(transport: asyncio.BaseTransport, wanted: Keepalive) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    options = ((socket.TCP_KEEPCNT, wanted.probes), (socket.TCP_KEEPIDLE, wanted.time), (socket.TCP_KEEPINTVL, wanted.interval))
    with suppress(OSError):  # it is closed already, or the kernel takes no such number: no reason to go without the connection
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, number in options:
            if number is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, number)
