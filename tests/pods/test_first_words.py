"""In what order a pod's two processes speak: on a busy machine either may be late. No process is made here."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from devmesh.pods import init
from devmesh.pods.init import PodSpec, run_pod

SPEC = PodSpec("web", "127.7.0.1", Path("hosts"), Path("resolv.conf"), 1000, 1000)
FORKED = 2**22 + 1  # no pid


class Channel:
    """Writes down what is said on it."""

    def __init__(self, said):
        self._said = said

    def send(self, data):
        self._said.append(json.loads(data))

    def close(self):
        pass


class Ended(BaseException):
    """Instead of os._exit."""


class ScriptedInit:
    """Says of its pod as soon as it runs."""

    def __init__(self, _, channel):
        self._channel = channel

    def run(self):
        self._channel.send(b'{"event": "pod"}')
        return 0


@pytest.fixture
def said(monkeypatch):
    """What is said, and `go` where the init is let go; the process itself is neither forked nor waited for."""
    out = []

    def write(fd, data):
        out.append("go")
        return real_write(fd, data)

    real_write = os.write
    monkeypatch.setattr(init, "_make_namespaces", lambda: None)
    monkeypatch.setattr(init, "Init", ScriptedInit)
    monkeypatch.setattr(init, "die_with_parent", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "waitpid", lambda *_: (FORKED, 0))
    monkeypatch.setattr(os, "write", write)
    return out


def test_the_inits_number_is_told_before_it_begins(said, monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: FORKED)
    assert run_pod(SPEC, Channel(said)) == 0
    assert said == [{"event": "init", "pid": FORKED}, "go"]


@pytest.mark.parametrize(("let_go", "says"), [(True, [{"event": "pod"}]), (False, [])], ids=["let go", "its parent died before"])
def test_it_says_nothing_before_it_is_let_go(said, monkeypatch, let_go, says):
    go_read, go_write = os.pipe()
    with os.fdopen(go_read):
        with os.fdopen(go_write, "wb", buffering=0) as go:
            if let_go:
                go.write(b"G")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        monkeypatch.setattr(os, "_exit", _end)
        with pytest.raises(Ended):
            init._be_init(SPEC, Channel(said), go_read)
    assert said == says


def _end(_):
    raise Ended
