"""The header ahead of a connection: the bytes, whose addresses, and that it comes before TLS."""

import pytest

from devmesh.sidecar.proxy_protocol import header
from tests.sidecar import snapshots
from tests.sidecar.identities import Identity, authority, credentials, upstream_tls
from tests.sidecar.sidecars import OK, app, one_route, read_head, sidecar
from tests.sidecar.test_tcp import tcp

SOCKET = "envoy.transport_sockets.upstream_proxy_protocol"
RAW = {"name": "raw_buffer"}


def wrapped(version, inner=None):
    config = {"config": {"version": version}, "transport_socket": inner or RAW}
    return {"transport_socket": {"name": SOCKET, "typed_config": config}}


@pytest.mark.parametrize(
    ("version", "remote", "local", "expected"),
    [
        # As a live Envoy 1.40 wrote them.
        (1, "127.0.0.1:59638", "127.0.0.1:41055", b"PROXY TCP4 127.0.0.1 127.0.0.1 59638 41055\r\n"),
        (2, "127.0.0.1:38438", "127.0.0.1:48577", b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x96&\xbd\xc1"),
        # proxy-protocol.txt sections 2.1 and 2.2.
        (1, "[2001:db8::1]:1", "[2001:db8::2]:2", b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"),
        (
            2, "2001:db8::1:258", "2001:db8::2:2",
            b"\r\n\r\n\x00\r\nQUIT\n!\x21\x00\x24" + bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02") + b"\x01\x02\x00\x02",
        ),
        (1, "10.0.0.1:1", "[2001:db8::2]:2", b"PROXY TCP6 ::ffff:a00:1 2001:db8::2 1 2\r\n"),
    ],
)  # fmt: skip
def test_the_header_is_as_the_protocol_and_envoy_write_it(version, remote, local, expected):
    assert header(version, remote, local) == expected


def named(client, proxy):
    port = client.writer.get_extra_info("sockname")[1]
    return f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {proxy.port}\r\n".encode()


async def test_a_server_hears_of_a_tcp_client_before_that_says_anything():
    async def handler(reader, writer):
        writer.write(await reader.readuntil(b"\r\n"))
        writer.write(await reader.read(4))

    async with app(handler) as ours, sidecar(tcp(ours.port, cluster=wrapped("V1"))) as proxy:
        client = await proxy.connect()
        assert await client.reader.readuntil(b"\r\n") == named(client, proxy)
        client.send(b"data")
        assert await client.rest() == b"data"


async def test_of_http_every_client_connection_has_one_of_its_own_upstream_and_says_so_once():
    said = []

    async def handler(reader, writer):
        said.append(await reader.readuntil(b"\r\n"))
        while True:
            await read_head(reader)
            writer.write(OK)

    async with app(handler) as ours, sidecar(one_route(ours.port, cluster=wrapped("V1"))) as proxy:
        clients = [await proxy.connect() for _ in range(2)]
        for _ in range(2):
            assert [(await client.ask()).status for client in clients] == [200, 200]
        assert said == [named(client, proxy) for client in clients]
        for client in clients:
            client.leave()


async def test_a_mirrored_request_has_no_client_so_its_addresses_are_its_own_connections():
    said = []

    async def handler(reader, writer):
        said.append((await reader.readuntil(b"\r\n"), writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]))
        await read_head(reader)
        writer.write(OK)

    mirrors = {"request_mirror_policies": [{"cluster": "m"}]}
    async with app(handler) as copies, app(handler) as ours:
        snapshot = one_route(ours.port, action=mirrors, cluster=wrapped("V1"))
        snapshot["clusters"].append(snapshots.cluster("m", (("127.0.0.1", copies.port),), **wrapped("V1")))
        async with sidecar(snapshot) as proxy:
            assert (await proxy.ask()).status == 200
        (line, theirs, own) = next(one for one in said if one[2] == copies.port)
    assert line == f"PROXY TCP4 127.0.0.1 127.0.0.1 {theirs} {own}\r\n".encode()


async def test_it_comes_before_tls(tmp_path):
    ca, seen = authority(tmp_path), []

    async def handler(reader, _):
        seen.append(await reader.readuntil(b"\r\n"))
        seen.append(await reader.readexactly(1))

    cluster = wrapped("V1", upstream_tls("server"))
    async with app(handler) as ours, sidecar(tcp(ours.port, cluster=cluster), identity=Identity(credentials(ca, "client"))) as proxy:
        client = await proxy.connect()
        assert await client.closed()
        assert seen == [named(client, proxy), b"\x16"]  # a TLS record with a handshake message


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"transport_socket_matches": [{"match": {}, **wrapped("V1")}, {"match": {}, "transport_socket": RAW}]}, "some of a cluster's"),
        (
            {"transport_socket": {"name": SOCKET, "typed_config": {"config": {"added_tlvs": [{}]}, "transport_socket": RAW}}},
            "added_tlvs is not supported",
        ),
    ],
)
def test_what_could_not_be_told_is_refused(fields, problem):
    assert problem in snapshots.refusal(clusters=[snapshots.cluster("c", **fields)])
