"""What the launcher does before it forks."""

import os
from pathlib import Path

from devmesh.ca.client import certificate_request, new_key
from devmesh.ca.warm import NOBODY, warm_up


def test_a_whole_handshake_is_made_and_nothing_is_written(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warm_up()
    assert list(tmp_path.iterdir()) == []


def test_keys_made_after_a_fork_are_each_childs_own():
    warm_up()
    found = set()
    for _ in range(2):
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, certificate_request(new_key(), NOBODY).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answer:
            found.add(answer.read())
        os.wait()
    assert len(found) == 2
