"""Protocols whose server speaks first (MySQL, SMTP): no byte of the client may be waited for."""

import asyncio
import socket

from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from tests.sidecar.snapshots import cluster, http_chain, listener, parsed

TCP = "envoy.filters.network.tcp_proxy"


async def test_a_server_speaks_first_where_istio_switches_the_inspectors_off():
    left = asyncio.Event()

    async def greet(reader, writer):
        writer.write(b"220 ready")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    app = await asyncio.start_server(greet, "127.0.0.1", 0)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    address, port = sock.getsockname()
    plain = {"transport_protocol": "raw_buffer"}
    tcp = {"filters": [{"name": TCP, "typed_config": {"stat_prefix": "s", "cluster": "c"}}]}
    chains = [
        {**http_chain(), "filter_chain_match": {**plain, "application_protocols": ["http/1.1", "h2c"]}},
        {**tcp, "filter_chain_match": {**plain, "destination_port": port}},
    ]
    off = {"destination_port_range": {"start": port, "end": port + 1}}
    inspector = {"name": "envoy.filters.listener.http_inspector", "filter_disabled": off}
    proxy = Proxy()
    proxy.apply(
        parsed(
            listeners=[listener(*chains, listener_filters=[inspector], listener_filters_timeout="0s", traffic_direction="INBOUND")],
            clusters=[cluster("c", (app.sockets[0].getsockname(),))],
        )
    )
    await proxy.listen([SocketSpec("inbound", address, port, sock)])
    reader, writer = await asyncio.open_connection(address, port)
    async with asyncio.timeout(60):
        assert await reader.readexactly(9) == b"220 ready"
    writer.close()
    await left.wait()
    await proxy.close()
    app.close()
