"""The keep-alive that a cluster asks for is on the socket, however that was made."""

import asyncio
import contextlib
import socket

import pytest

from devmesh.sidecar import seam
from devmesh.sidecar.config import Cluster, Endpoint, Keepalive
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.seam import Handler, factory
from devmesh.sidecar.target import Target
from tests.sidecar import snapshots
from tests.sidecar.sidecars import answering, app
from tests.sidecar.upstreams import upstreams


class Passed(Dialer):
    """Gives a socket that somebody else has connected, as the init of a pod does."""

    async def connect(self, make, host, port, bind, *, original):
        sock = socket.create_connection((host, port))
        return (await asyncio.get_running_loop().create_connection(factory(make), sock=sock))[0]


@contextlib.asynccontextmanager
async def connection(cluster, dialer):
    """A connection's socket, as the system has it."""

    class Ours(Handler):
        def connection_made(self, transport):
            self.transport = transport

    async with app(answering()) as there:
        ours, handler = upstreams(dialer=dialer), Ours()
        ours.open(Target(cluster, Endpoint("127.0.0.1", there.port), None), lambda _: handler, pytest.fail)
        await asyncio.gather(*ours._tasks)
        try:
            yield handler.transport.get_extra_info("socket")
        finally:
            handler.transport.close()
            await ours.close()


def options(sock):
    on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return on, *(sock.getsockopt(socket.IPPROTO_TCP, o) for o in (socket.TCP_KEEPCNT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL))


@pytest.mark.skipif(not seam.__file__.endswith(".py"), reason="a test's own handler cannot be below a compiled class")
@pytest.mark.parametrize("dialer", [Dialer(), Passed()], ids=["dialled", "passed"])
async def test_the_socket_has_the_numbers_of_the_cluster_and_the_systems_where_it_names_none(dialer):
    plain = Cluster("c", "STATIC", "RANDOM", ())
    async with connection(plain, dialer) as sock:
        off, *system = options(sock)
    assert not off
    async with connection(Cluster("c", "STATIC", "RANDOM", (), keepalive=Keepalive(3, 60, 10)), dialer) as sock:
        assert options(sock) == (1, 3, 60, 10)
    async with connection(Cluster("c", "STATIC", "RANDOM", (), keepalive=Keepalive()), dialer) as sock:
        assert options(sock) == (1, *system)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, Keepalive()),
        ({"keepalive_probes": 3, "keepalive_time": 60, "keepalive_interval": 10}, Keepalive(3, 60, 10)),
        ({"keepalive_time": 60}, Keepalive(time=60)),
        ({"keepalive_time": 0}, None),
    ],
)
def test_a_zero_switches_it_off_as_in_envoy(given, read):
    """Asked of Envoy 1.40: `ss -o` shows no timer."""
    cluster = snapshots.cluster("c", upstream_connection_options={"tcp_keepalive": given})
    assert snapshots.parsed(clusters=[cluster]).clusters["c"].keepalive == read
