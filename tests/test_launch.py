"""The process that others are forked from: a request waits for what its own entry imports, and for nothing else."""

import json
import os
import socket
import ssl
import subprocess
import sys

import pytest

from devmesh.ca.authority import Authority
from devmesh.launch import without_authorities

PROGRAM = """
import socket, sys
from devmesh.launch import Launcher

def entry(arguments, sockets, ready):
    import ssl, warm
    trusted = len(ssl.create_default_context().get_ca_certs())
    sockets[0].send(repr([warm.warmed, [name for name in ("slow", "quick") if name in sys.modules], warm.trusted, trusted]).encode())

Launcher(socket.socket(fileno=int(sys.argv[1])), {"quick": entry, "slow": entry}, {"slow": ("slow",), "quick": ("warm", "quick")}).serve()
"""
WARM = """
import ssl
warmed = 0
trusted = len(ssl.create_default_context().get_ca_certs())
def warm_up():
    global warmed
    warmed += 1
"""


def test_a_request_waits_for_what_its_entry_needs_and_the_rest_is_imported_afterwards(tmp_path):
    (tmp_path / "slow.py").touch()
    (tmp_path / "quick.py").touch()
    (tmp_path / "warm.py").write_text(WARM)
    (tmp_path / "authorities.pem").write_text(Authority.in_memory().trust_bundle.pem)
    environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "authorities.pem")}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard, told = socket.socketpair()
    with ours, heard:
        ask(ours, "quick", told, tmp_path)  # before it looks for the first time
        with (
            theirs,
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=tmp_path, env=environment
            ) as process,
        ):
            theirs.close()
            assert heard.recv(100) == b"[1, ['quick'], 0, 1]", "authorities are trusted by what is forked, and not read before"
            ask(ours, "slow", told, tmp_path)
            assert heard.recv(100) == b"[1, ['slow', 'quick'], 0, 1]"
            told.close()
            ours.shutdown(socket.SHUT_RDWR)
            assert process.wait(30) == 0


def test_what_it_keeps_is_open_until_the_last_of_its_children_has_ended(tmp_path):
    program = """
import signal, socket, sys
from devmesh.launch import Launcher

Launcher(socket.socket(fileno=int(sys.argv[1])), {"child": lambda arguments, sockets, ready: (sockets[0].send(b"on"), sockets[0].recv(1))}, {}).serve()
"""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept, keeper = socket.socketpair()
    heard, told = socket.socketpair()
    with ours, kept, heard, subprocess.Popen([sys.executable, "-c", program, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        socket.send_fds(ours, [json.dumps({"keep": True}).encode()], [keeper.fileno()])
        keeper.close()
        ask(ours, "child", told, tmp_path)
        told.close()
        assert heard.recv(2) == b"on"
        process.kill()  # the supervisor, this test, holds none of it either
        process.wait()
        kept.setblocking(False)
        with pytest.raises(BlockingIOError):
            kept.recv(1)
        kept.settimeout(30)
        heard.close()  # the child ends
        assert kept.recv(1) == b""


def ask(channel, entry, sock, folder):
    request = {"name": entry, "entry": entry, "arguments": {}, "log": str(folder / "log")}
    socket.send_fds(channel, [json.dumps(request).encode()], [sock.fileno()])


def test_the_machines_authorities_are_not_read_meanwhile_and_are_afterwards(monkeypatch):
    read = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: read.append("by default"))
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", lambda *_: read.append("by path"))
    with without_authorities():
        context = ssl.create_default_context()
        context.set_default_verify_paths()
        assert read == []
        assert context.verify_mode is ssl.CERT_REQUIRED, "whoever uses it trusts nobody"
    ssl.create_default_context().set_default_verify_paths()
    assert read == ["by default", "by path"]
