"""Sockets that share a port number."""

import socket

from devmesh.runtimes.claims import claim_port


def tcp_and_udp() -> tuple[socket.socket, socket.socket]:
    """Both on 127.0.0.1 at one port, the first one listening; of the ports that no connection and no client is given."""
    number, held = claim_port()
    with held:
        stream = socket.create_server(("127.0.0.1", number))
        datagrams = socket.socket(type=socket.SOCK_DGRAM)
        datagrams.bind(stream.getsockname())
    return stream, datagrams
