"""mTLS between two sidecars with certificates of devmesh's CA: who is let in, who is not, and what both write down."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from devmesh.ca.authority import Authority
from devmesh.sidecar.client_certificate import spki_of
from devmesh.sidecar.config import TlsContext
from devmesh.sidecar.record import Flag
from devmesh.sidecar.tls import Contexts, Credentials, Peer, PeerRefused, build_context, check_peer
from tests.sidecar import snapshots
from tests.sidecar.identities import Identity, authority, credentials, downstream_tls, spiffe, upstream_tls
from tests.sidecar.sidecars import LIMIT, OK, answering, app, one_route, read_body, read_head, sidecar
from tests.support.waiting import until
from tests.support.web_certificates import WebCa

PLAIN = {"filter_chain_match": {"transport_protocol": "raw_buffer"}}
TLS = {"filter_chain_match": {"transport_protocol": "tls"}}
INSPECTED = [{"name": "envoy.filters.listener.tls_inspector"}, {"name": "envoy.filters.listener.http_inspector"}]


@pytest.fixture
def ca(tmp_path) -> Authority:
    return authority(tmp_path)


def serving(port: int, *, permissive: bool = False, prefix: str = "spiffe://cluster.local/"):
    """An inbound sidecar before an app: STRICT, or with a plaintext chain as well."""
    table = snapshots.table(snapshots.host(snapshots.route(route={"cluster": "c", "timeout": "0s"})))
    details = {"subject": True, "uri": True}
    chain = snapshots.http_chain(route_config=table, forward_client_cert_details="APPEND_FORWARD", set_current_client_cert_details=details)
    chains = [{**chain, **TLS, "transport_socket": downstream_tls(prefix)}, *([{**chain, **PLAIN}] if permissive else [])]
    listener = snapshots.listener(*chains, traffic_direction="INBOUND", listener_filters=INSPECTED)
    return {"listeners": [listener], "clusters": [snapshots.cluster("c", (("127.0.0.1", port),))]}


def calling(port: int, account: str = "server"):
    return one_route(port, cluster={"transport_socket": upstream_tls(account)})


@contextlib.asynccontextmanager
async def pair(ca, handler, *, account="server", client_credentials=None, wanted="server", prefix="spiffe://cluster.local/"):
    """A caller's sidecar, the called one's, and the app."""
    ours = credentials(ca, "client") if client_credentials is None else client_credentials
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(app(handler))
        server_identity = Identity(credentials(ca, account))
        server = await stack.enter_async_context(
            sidecar(serving(served.port, prefix=prefix), identity=server_identity, spiffe_id=spiffe(account))
        )
        client = await stack.enter_async_context(
            sidecar(calling(server.port, wanted), identity=Identity(ours), gateway=False, spiffe_id=spiffe("client"))
        )
        yield client, server, served


async def test_a_request_crosses_with_both_identities_proven_and_recorded(ca):
    seen = []
    async with pair(ca, answering(OK, seen)) as (client, server, _):
        connection = await client.connect()
        for _ in range(3):
            assert (await connection.ask("/", "x-forwarded-client-cert: forged")).body == b"ok"
        inner = await server.records.next()
        assert (inner.mtls, inner.peer_principal) == (True, spiffe("client"))
        assert f"By={spiffe('server')};" in seen[0][1]["x-forwarded-client-cert"]
        assert seen[0][1]["x-forwarded-client-cert"].endswith(f"URI={spiffe('client')}")
        assert "forged" not in seen[0][1]["x-forwarded-client-cert"]
        assert len(server.proxy.connections) == 1
        assert (await client.records.next()).mtls


async def test_a_large_body_crosses_both_ways(ca):
    async def handler(reader, writer):
        _, headers = await read_head(reader)
        body, _ = await read_body(reader, headers)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.read()

    body = bytes(range(256)) * 20_000
    async with pair(ca, handler) as (client, _, _):
        assert (await client.ask(method="POST", body=body)).body == body


async def test_a_peer_with_another_spiffe_id_is_refused_by_the_caller(ca):
    async with pair(ca, answering(), account="impostor") as (client, _, served):
        answer = await client.ask()
        assert answer.status == 503
        record = await client.records.next()
        assert record.flags == Flag.UF
        assert "TLS_error" in record.transport_failure
        assert spiffe("impostor") in record.transport_failure
        assert served.connections == 0


async def test_a_caller_of_another_namespace_is_refused_by_the_called(ca):
    async with pair(ca, answering(), prefix="spiffe://cluster.local/ns/other/") as (client, server, served):
        assert (await client.ask()).status == 503
        assert (await client.records.next()).flags in (Flag.UC, Flag.UF)
        assert served.connections == 0
        assert server.proxy.stats()["ssl.connection_error"] >= 1


async def test_a_certificate_of_another_ca_is_refused_by_both(ca, tmp_path):
    foreign = authority(tmp_path, "foreign")
    theirs, ours = credentials(foreign, "client"), credentials(ca, "client")
    # It trusts our CA, so that only the called one can refuse; then one that trusts only its own.
    for given, flags in (
        (Credentials(theirs.certificate_chain, theirs.private_key, ours.trust_bundle), (Flag.UC, Flag.UF)),
        (theirs, (Flag.UF,)),
    ):
        async with pair(ca, answering(), client_credentials=given) as (client, _, served):
            assert (await client.ask()).status == 503
            assert (await client.records.next()).flags in flags
            assert served.connections == 0


async def test_a_sidecar_without_a_certificate_calls_nobody_and_lets_nobody_in(ca):
    async with app(answering()) as served, sidecar(serving(served.port), identity=Identity(None)) as server:
        async with sidecar(calling(server.port), identity=Identity(credentials(ca, "client"))) as client:
            assert (await client.ask()).status == 503
        async with sidecar(calling(server.port), identity=Identity(None)) as client:
            assert (await client.ask()).status == 503
            assert (await client.records.next()).flags == Flag.UF
        assert served.connections == 0


async def test_plaintext_to_a_strict_port_is_refused_and_to_a_permissive_one_served(ca):
    async with app(answering()) as served:
        async with sidecar(serving(served.port), identity=Identity(credentials(ca, "server"))) as server:
            client = await server.connect()
            client.get()
            assert await client.closed()
            assert served.connections == 0
        async with sidecar(serving(served.port, permissive=True), identity=Identity(credentials(ca, "server"))) as server:
            assert (await server.ask()).body == b"ok"
            assert (await server.records.next()).mtls is False
            async with sidecar(calling(server.port), identity=Identity(credentials(ca, "client"))) as client:
                assert (await client.ask()).body == b"ok"


async def test_tls_without_a_client_certificate_is_refused(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with app(answering()) as served, sidecar(serving(served.port), identity=Identity(credentials(ca, "server"))) as server:
        client = await server.connect(ssl=context)
        client.get()
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        assert served.connections == 0


async def test_a_rotated_certificate_is_used_by_the_next_connection_and_the_old_one_goes_on(ca):
    async with app(answering()) as served:
        identity = Identity(credentials(ca, "client"))
        async with (
            sidecar(serving(served.port), identity=Identity(credentials(ca, "server"))) as server,
            sidecar(calling(server.port), identity=identity) as client,
        ):
            first = await client.connect()
            assert (await first.ask()).status == 200
            identity.credentials = credentials(ca, "renewed")
            assert (await first.ask()).status == 200
            assert [(await server.records.next()).peer_principal for _ in range(2)] == [spiffe("client")] * 2
            for connection in list(server.proxy.connections):
                connection.close()
            await until(lambda: not client.proxy.upstreams.load("c").connections)
            assert (await first.ask()).status == 200
            assert (await server.records.next()).peer_principal == spiffe("renewed")


async def test_noise_after_the_handshake_has_begun_ends_the_connection(ca):
    async with app(answering()) as served, sidecar(serving(served.port), identity=Identity(credentials(ca, "server"))) as server:
        for noise in (
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" + b"x" * 50,
            b"\x16\x03\x03\x40\x00" + b"\x01" * 20_000,
            b"\x15\x03\x03\x00\x02\x02\x28",
        ):
            client = await server.connect()
            client.send(noise)
            with contextlib.suppress(ConnectionResetError):
                assert not (await client.rest()).startswith(b"HTTP")
        assert served.connections == 0


async def test_a_body_cut_by_the_connection_is_not_taken_for_whole(ca):
    """A FIN without close_notify under a body of known length (RFC 8446 section 6.1: truncation)."""

    async def handler(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin")
        await writer.drain()

    async with pair(ca, handler) as (client, _, _):
        connection = await client.connect()
        connection.get()
        with contextlib.suppress(ConnectionResetError, asyncio.IncompleteReadError):
            async with asyncio.timeout(LIMIT):
                await connection.reader.readuntil(b"\r\n\r\n")
                assert len(await connection.reader.read()) < 10
        assert (await client.records.next()).flags != Flag.NONE


@pytest.mark.parametrize(
    ("sans", "name", "passes"),
    [
        ((), "spiffe://x/a", True),
        ((("exact", "spiffe://x/a"),), "spiffe://x/a", True),
        ((("exact", "spiffe://x/a"),), "spiffe://x/ab", False),
        ((("exact", "spiffe://x/b"), ("exact", "spiffe://x/a")), "spiffe://x/a", True),
        ((("prefix", "spiffe://x/"),), "spiffe://x/a", True),
        ((("prefix", "spiffe://x/"),), "spiffe://y/a", False),
        ((("suffix", "/a"),), "spiffe://x/a", True),
        ((("contains", "x/"),), "spiffe://x/a", True),
        ((("exact", "spiffe://x/a"),), "", False),
        ((("prefix", "spiffe://x/"),), "", False),
    ],
)
def test_a_peer_is_who_the_san_matchers_say(sans, name, passes):
    context = TlsContext("default", "ROOTCA", sans)
    with contextlib.nullcontext() if passes else pytest.raises(PeerRefused):
        check_peer(context, Peer(name, names=(name,)))


@pytest.mark.parametrize(
    ("wanted", "name", "passes"),
    [("a.example", "a.example", True), ("a.example", "*.example", True), ("a.b.example", "*.example", False), ("b", "a", False)],
)
def test_outside_the_mesh_a_name_of_the_certificate_must_be_the_wanted_one(wanted, name, passes):
    context = TlsContext("", "file-root:system", (("exact", wanted),))
    with contextlib.nullcontext() if passes else pytest.raises(PeerRefused):
        check_peer(context, Peer(certificate_hash="ab", names=(name,)))


def test_in_the_mesh_a_certificate_without_a_spiffe_id_is_refused():
    with pytest.raises(PeerRefused, match="SPIFFE ID"):
        check_peer(TlsContext("default", "ROOTCA"), Peer(certificate_hash="ab", names=("localhost",)))


def test_contexts_are_kept_until_the_certificate_changes(ca):
    identity = Identity(credentials(ca, "a"))
    contexts = Contexts(identity, lambda _: None)
    tls = TlsContext("default", "ROOTCA", require_client_certificate=True)
    first = contexts.server(tls)
    assert first is contexts.server(tls)
    assert first is not contexts.client(tls, ())
    identity.credentials = credentials(ca, "a")
    assert first is not contexts.server(tls)
    identity.credentials = None
    assert contexts.server(tls) is None


def test_roots_that_nobody_has_are_not_replaced_by_others(ca):
    for side in ("server", "client"):
        without = Contexts(Identity(None), lambda _: None)
        with_own = Contexts(Identity(credentials(ca, "a")), lambda _: None)
        for contexts, tls, there in (
            (without, TlsContext("", "ROOTCA"), False),
            (with_own, TlsContext("", "ROOTCA"), True),
            (with_own, TlsContext("default", "another"), False),
        ):
            found = contexts.server(tls) if side == "server" else contexts.client(tls, ())
            assert (found is not None) is there, (side, tls)


def test_mesh_connections_are_tls_1_3_and_verified(ca):
    for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = build_context(side, TlsContext("default", "ROOTCA", require_client_certificate=True), (b"istio",), [credentials(ca, "a")])
        assert (context.minimum_version, context.verify_mode) == (ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED)


@pytest.mark.parametrize(
    ("least", "most", "bounds"),
    [
        ("TLSv1_2", "TLSv1_3", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)),
        ("TLSv1_3", "TLSv1_3", (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)),
        ("TLSv1_2", "TLSv1_2", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)),
        ("TLSv1_0", "TLSv1_3", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)),
    ],
)
def test_a_servers_versions_are_what_it_asks_for_and_1_2_at_the_least(ca, least, most, bounds):
    context = build_context(ssl.PROTOCOL_TLS_SERVER, TlsContext("a", None, min_version=least, max_version=most), (), [credentials(ca, "a")])
    assert (context.minimum_version, context.maximum_version) == bounds


def test_cipher_suites_bind_up_to_tls_1_2(ca):
    suites = ("ECDHE-ECDSA-AES256-GCM-SHA384",)
    context = build_context(ssl.PROTOCOL_TLS_SERVER, TlsContext("a", None, cipher_suites=suites), (), [credentials(ca, "a")])
    assert [one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"] == list(suites)


@pytest.mark.parametrize(
    ("validation", "required", "mode"),
    [(None, False, ssl.CERT_NONE), ("roots", False, ssl.CERT_OPTIONAL), ("roots", True, ssl.CERT_REQUIRED)],
)
def test_a_client_is_asked_for_a_certificate_when_there_are_roots_for_it(ca, validation, required, mode):
    tls = TlsContext("a", validation, require_client_certificate=required)
    roots = credentials(ca, "a").trust_bundle
    assert build_context(ssl.PROTOCOL_TLS_SERVER, tls, (), [credentials(ca, "a")], roots).verify_mode is mode


def test_who_shows_no_certificate_where_none_is_demanded_has_none_to_check():
    sans = (("exact", "client.example"),)
    check_peer(TlsContext("a", "roots", sans), Peer())
    with pytest.raises(PeerRefused):
        check_peer(TlsContext("a", "roots", sans), Peer(certificate_hash="ab", names=("other.example",)))
    with pytest.raises(PeerRefused):
        check_peer(TlsContext("a", "roots", sans, require_client_certificate=True), Peer())


def test_a_pinned_certificate_is_one_of_its_hashes_or_has_one_of_the_keys():
    der = ssl.PEM_cert_to_DER_cert(WebCa().pair("a.example").certificate)
    peer = Peer(certificate_hash="ab", certificate=der)
    for pins in ({"certificate_hashes": ("cd", "ab")}, {"certificate_spkis": (spki_of(der),)}):
        check_peer(TlsContext("a", "roots", **pins), peer)
    for pins in ({"certificate_hashes": ("cd",)}, {"certificate_spkis": ("x=",)}):
        with pytest.raises(PeerRefused, match="verify_certificate_hash"):
            check_peer(TlsContext("a", "roots", **pins), peer)


def test_a_secret_that_nobody_has_is_not_replaced_by_our_own(ca):
    contexts = Contexts(Identity(credentials(ca, "a")), lambda _: None)
    assert contexts.server(TlsContext("kubernetes://a", None)) is None
    assert contexts.server(TlsContext("default", None)) is not None


def test_relative_names_of_files_begin_where_the_runtime_says(tmp_path):
    pair = WebCa().pair("a.example")
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "a.pem").write_text(pair.certificate)
    (tmp_path / "certs" / "a.key").write_text(pair.key)
    tls = TlsContext("file-cert:certs/a.pem~certs/a.key", "file-root:certs/a.pem")
    assert Contexts(None, lambda _: None, tmp_path).server(tls) is not None
    assert Contexts(None, lambda _: None, tmp_path / "elsewhere").server(tls) is None
