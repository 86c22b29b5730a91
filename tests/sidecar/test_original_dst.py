"""Redirected connections; real redirects are in tests/pods, since only a network namespace of our own may have the rules."""

from __future__ import annotations

import socket
import struct

import pytest

from devmesh.sidecar.original_dst import SOL_IPV6, original_destination
from tests.sidecar.sidecars import answering, app, one_route, sidecar

IPV4 = struct.pack("!HH4s8x", socket.AF_INET, 9080, socket.inet_aton("240.240.0.1"))
IPV6 = struct.pack("!HHI16sI", socket.AF_INET6, 9080, 0, socket.inet_pton(socket.AF_INET6, "fd00::1"), 0)


class Redirected:
    """A socket whose kernel answers from a table of (level, option)."""

    def __init__(self, family: int, **answers: bytes) -> None:
        self.family, self._answers = family, answers

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        assert option == 80
        answer = self._answers.get({socket.SOL_IP: "v4", SOL_IPV6: "v6"}[level])
        if answer is None:
            raise OSError(2, "No such file or directory")
        return answer[:length]


@pytest.mark.parametrize(
    ("sock", "destination"),
    [
        (Redirected(socket.AF_INET, v4=IPV4), ("240.240.0.1", 9080)),
        (Redirected(socket.AF_INET6, v6=IPV6), ("fd00::1", 9080)),
        (Redirected(socket.AF_INET6, v4=IPV4), ("240.240.0.1", 9080)),
        (Redirected(socket.AF_INET), None),
        (Redirected(socket.AF_INET6), None),
    ],
    ids=["IPv4", "IPv6", "IPv4 on a dual-stack socket", "not redirected", "IPv6, not redirected"],
)
def test_the_original_destination_is_what_the_kernel_says(sock, destination):
    assert original_destination(sock) == destination


@pytest.mark.parametrize("role", ["virtual_outbound", "virtual_inbound"])
async def test_a_connection_to_a_redirect_listener_itself_is_refused_and_never_reaches_the_app(role):
    async with app(answering()) as ours, sidecar(one_route(ours.port), role=role) as proxy:
        client = await proxy.connect()
        client.get()
        assert await client.closed()
        assert ours.connections == 0
