"""What the launcher of a mesh is before it is asked for anything."""

import ssl

from devmesh.runtimes.local.__main__ import without_authorities


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
