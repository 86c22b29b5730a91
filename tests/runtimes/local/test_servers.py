"""A mesh's own servers: where they are and what they are started with."""

from __future__ import annotations

import socket

import pytest

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.children import Children
from devmesh.runtimes.local.servers import OwnServers
from tests.runtimes.local.scripted import ScriptedLaunchers


@pytest.fixture
def started(tmp_path):
    """Servers that are bound, and the launchers that are to fork them."""
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    launchers = ScriptedLaunchers()
    servers = OwnServers(files, Children(files, launchers, None, lambda: None))
    servers.bind({})
    yield servers, launchers, files
    for socks in servers._socks.values():
        for sock in socks:
            sock.close()


def test_each_face_has_a_port_and_takes_connections_before_its_server_runs(started):
    servers, _, _ = started
    assert sorted(servers.ports) == ["ca", "control", "otlp", "query", "registry", "xds"]
    assert len(set(servers.ports.values())) == 6
    for port in servers.ports.values():
        socket.create_connection(("127.0.0.1", port), timeout=60).close()


def test_a_second_mesh_gets_other_ports(started, tmp_path):
    first, _, files = started
    second = OwnServers(files, Children(files, ScriptedLaunchers(), None, lambda: None))
    second.bind({})
    for socks in second._socks.values():
        for sock in socks:
            sock.close()
    assert not set(first.ports.values()) & set(second.ports.values())


def test_tokens_are_kept_where_only_their_owner_reads_and_never_sent_to_a_launcher(started):
    servers, launchers, files = started
    (path,) = servers.keep_tokens({"web": "secret"}).values()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("secret", 0o600)
    servers.start_control(path, "http://127.0.0.1:4318/v1/traces")
    (request,) = launchers.requests
    assert request["entry"] == "control"
    assert request["arguments"]["ca"]["token_file"] == str(path)
    assert "secret" not in str(request)
    assert files.mesh_token() not in str(request)
