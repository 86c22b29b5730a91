"""Numbers of meshes and ports of apps: each given once, for every user of the machine."""

import socket
import subprocess
import sys

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.local import claims
from devmesh.runtimes.local.claims import claim_mesh_number, claim_port

CLAIM = "from devmesh.runtimes.local.claims import claim_mesh_number; print(claim_mesh_number()[0])"


def test_a_number_is_taken_until_its_mesh_ends_also_for_another_process():
    first, held = claim_mesh_number()
    with held:
        second, other = claim_mesh_number()
        other.close()
        assert second > first
        done = subprocess.run([sys.executable, "-c", CLAIM], capture_output=True, text=True, check=True)
        assert int(done.stdout) != first
    again, held = claim_mesh_number()
    held.close()
    assert again <= second


def test_when_all_are_taken_it_says_so(monkeypatch):
    monkeypatch.setattr(claims, "MESHES", 0)
    with pytest.raises(DevmeshError, match="0 meshes run already") as caught:
        claim_mesh_number()
    assert caught.value.hint == "devmesh down in a folder that you no longer need"


def test_a_port_is_given_once_while_it_is_held():
    (first, held), (second, also) = claim_port(), claim_port()
    with held, also:
        assert first != second
    again, held = claim_port([first])
    held.close()
    assert again == first


def test_a_port_that_somebody_listens_on_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.77", 0))
        port = taken.getsockname()[1]
        with pytest.raises(DevmeshError, match="no port between"):
            claim_port([port])
