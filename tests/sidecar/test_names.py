"""Names are answered from the first question on, and before it nothing of it is loaded."""

import asyncio
import socket
import subprocess
import sys

import dns.message
import pytest

from devmesh.sidecar.names import serving
from tests.support.ports import tcp_and_udp

NAMES = {"reviews": ("240.240.0.3",)}
LOADED = """
import asyncio, socket, sys
from devmesh.sidecar.names import serving
async def main():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        async with serving([sock], dict, {}):
            await asyncio.sleep(0)
            print("dns" in sys.modules)
asyncio.run(main())
"""


@pytest.fixture
def sockets():
    both = tcp_and_udp()
    yield list(both)
    for sock in both:
        sock.close()


async def test_the_first_question_is_answered_and_so_are_the_following(sockets):
    port = sockets[0].getsockname()[1]
    async with serving(sockets, lambda: NAMES, {}):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", port))
            for _ in range(2):
                await asyncio.get_running_loop().sock_sendall(sock, dns.message.make_query("reviews.", "A").to_wire())
                async with asyncio.timeout(60):
                    answer = dns.message.from_wire(await asyncio.get_running_loop().sock_recv(sock, 512))
                assert str(answer.answer[0][0]) == "240.240.0.3"


async def test_who_never_asks_costs_nothing(sockets):
    async with serving(sockets, lambda: NAMES, {}):
        await asyncio.sleep(0)


def test_nothing_is_loaded_before_the_first_question():
    assert subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout == "False\n"
