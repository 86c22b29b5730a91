"""Numbers of meshes: one a mesh, for every user of the machine."""

import subprocess
import sys

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.local import plan
from devmesh.runtimes.local.plan import claim_mesh_number

CLAIM = "from devmesh.runtimes.local.plan import claim_mesh_number; print(claim_mesh_number()[0])"


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
    monkeypatch.setattr(plan, "MESHES", 0)
    with pytest.raises(DevmeshError, match="0 meshes run already") as caught:
        claim_mesh_number()
    assert caught.value.hint == "devmesh down in a folder that you no longer need"
