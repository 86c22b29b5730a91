"""TLS to servers outside the mesh, as DestinationRule's SIMPLE and MUTUAL ask for it: files, server names, names of the certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from devmesh.ca.memfd import load_pair
from devmesh.sidecar.record import Flag
from tests.sidecar.identities import Identity, authority, credentials
from tests.sidecar.sidecars import OK, answering, one_route, port_of, sidecar

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path)


@pytest.fixture
def files(ca, tmp_path):
    """The server's roots and a client's pair, where an operator has put them."""
    issued, key = ca.server_certificate()
    for name, text in (("ca.pem", ca.trust_bundle.pem), ("client.pem", "".join(issued.certificate_chain)), ("client.key", key)):
        (tmp_path / name).write_text(text)
    return tmp_path


@contextlib.asynccontextmanager
async def web_server(ca, *, client=ssl.CERT_NONE):
    """An HTTPS server for `localhost`; what it was asked for, in order."""
    issued, key = ca.server_certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, "".join(issued.certificate_chain), key)
    context.load_verify_locations(cadata=ca.trust_bundle.pem)
    context.verify_mode = client
    asked = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    handler = answering(OK)

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield port_of(server.sockets[0]), asked
    finally:
        server.close()


def originating(port, root, *, pair=None, sni="", sans=(), auto=None):
    common = {
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": [{"exact": san} for san in sans]} if sans else {},
            "validation_context_sds_secret_config": {"name": root},
        }
    }
    if pair:
        common["tls_certificate_sds_secret_configs"] = [{"name": pair}]
    context = {"common_tls_context": common, **({"sni": sni} if sni else {})}
    cluster = {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
    if auto:
        cluster["typed_extension_protocol_options"] = {HTTP_OPTIONS: {"upstream_http_protocol_options": auto}}
    return one_route(port, cluster=cluster)


async def ask(snapshot, host="localhost", **options):
    async with sidecar(snapshot, **options) as ours:
        client = await ours.connect()
        client.send(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        answer = await client.answer()
        return answer, await ours.records.next()


async def test_roots_come_from_the_file_that_the_rule_names(ca, files):
    async with web_server(ca) as (port, asked):
        answer, _ = await ask(originating(port, f"file-root:{files}/ca.pem", sni="web.example"))
        assert answer.body == b"ok"
        assert asked == ["web.example"]


async def test_the_systems_roots_do_not_vouch_for_a_private_ca(ca):
    async with web_server(ca) as (port, _):
        answer, record = await ask(originating(port, "file-root:system"))
        assert (answer.status, record.flags) == (503, Flag.UF)
        assert "CERTIFICATE_VERIFY_FAILED" in record.transport_failure


async def test_a_file_that_is_not_there_lets_nothing_through(ca, files, caplog):
    async with web_server(ca) as (port, asked):
        answer, record = await ask(originating(port, f"file-root:{files}/absent.pem"))
        assert (answer.status, record.flags, asked) == (503, Flag.UF, [])
    assert "absent.pem" in caplog.text


async def test_a_client_certificate_comes_from_the_rules_files_and_is_not_the_workloads_own(ca, files, tmp_path):
    foreign = credentials(authority(tmp_path, "foreign"), "client")
    async with web_server(ca, client=ssl.CERT_REQUIRED) as (port, _):
        pair = f"file-cert:{files}/client.pem~{files}/client.key"
        answer, _ = await ask(originating(port, f"file-root:{files}/ca.pem", pair=pair), identity=Identity(foreign))
        assert answer.body == b"ok"


async def test_with_auto_sni_the_host_is_the_server_name_and_no_connection_serves_two(ca, files):
    async with web_server(ca) as (port, asked), sidecar(originating(port, f"file-root:{files}/ca.pem", auto={"auto_sni": True})) as ours:
        client = await ours.connect()
        for host in ("a.example:9080", "b.example", "a.example:9080", "127.0.0.1"):
            client.send(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            assert (await client.answer()).body == b"ok"
        assert asked == ["a.example", "b.example", None]


@pytest.mark.parametrize(("host", "status"), [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("other", 503)])
async def test_with_auto_san_validation_the_certificate_must_be_the_hosts(ca, files, host, status):
    auto = {"auto_sni": True, "auto_san_validation": True}
    async with web_server(ca) as (port, _):
        answer, _ = await ask(originating(port, f"file-root:{files}/ca.pem", auto=auto), host)
        assert answer.status == status


async def test_files_are_read_again_after_a_new_configuration(ca, files, tmp_path):
    from_file = f"file-root:{files}/ca.pem"
    (files / "ca.pem").write_text(authority(tmp_path, "foreign").trust_bundle.pem)
    async with web_server(ca) as (port, _), sidecar(originating(port, from_file)) as ours:
        assert (await ours.ask()).status == 503
        (files / "ca.pem").write_text(ca.trust_bundle.pem)
        ours.proxy.apply(ours.proxy.config)
        assert (await ours.ask()).status == 200


def put(file, text):
    """As who renews certificates does it: all at once."""
    (new := file.with_suffix(".new")).write_text(text)
    new.rename(file)


async def test_files_that_change_are_read_for_the_next_connection_and_unusable_ones_change_nothing(ca, files, tmp_path):
    good, foreign = ca.trust_bundle.pem, authority(tmp_path, "foreign").trust_bundle.pem
    put(files / "ca.pem", foreign)
    async with web_server(ca) as (port, _), sidecar(originating(port, f"file-root:{files}/ca.pem")) as ours:
        statuses = []
        for text in (foreign, good, "half of a certificate", foreign):
            put(files / "ca.pem", text)
            statuses.append((await ours.ask()).status)
            ours.proxy.upstreams.close_idle()
        assert statuses == [503, 200, 200, 503]
