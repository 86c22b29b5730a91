"""Faults that are no answer: silence, apps that stand still, apps that are killed."""

import re

import pytest

from tests.e2e.conftest import RunningMesh, until, virtual_service

pytestmark = pytest.mark.e2e
MISSING = "Sorry, product details are currently unavailable"


@pytest.mark.parametrize("bookinfo", ["namespace"], indirect=True, scope="session")
def test_silence_a_pause_and_a_kill_degrade_the_page_are_shown_and_heal(clean_bookinfo: RunningMesh):
    mesh = clean_bookinfo
    assert MISSING not in mesh.page(), "from now on there is a connection in the pool"
    mesh.devmesh("apply", "-f", "-", stdin=virtual_service("details", "timeout: 2s"))
    mesh.devmesh("fault", "inject", "--partition", "productpage", "details")
    assert MISSING in mesh.page()
    access_log = mesh.folder / ".devmesh" / "logs" / "productpage-v1.access.log"
    until(lambda: " 504 UT response_timeout " in access_log.read_text())
    assert "fired 1 time" in mesh.devmesh("fault", "clear", "details").stdout
    assert MISSING not in mesh.page()

    mesh.devmesh("fault", "inject", "details", "--pause")
    assert MISSING in mesh.page()
    shown = mesh.devmesh("status")
    assert re.search(r"details-v1 .* paused ", shown.stdout)
    assert re.search(r"details-\w{6}: pause at details", shown.stderr)
    mesh.devmesh("fault", "inject", "details-v1", "--pause", "--for", "1s")
    mesh.devmesh("fault", "clear", "details")
    until(lambda: MISSING not in mesh.page())  # when the second one's time is over

    killed = mesh.pid("details-v1")
    mesh.devmesh("fault", "inject", "details-v1", "--kill")
    until(lambda: mesh.pid("details-v1") != killed)
    (fault,) = mesh.json("fault", "list")["faults"]
    assert (fault["state"], fault["hits"]) == ("done", 1), "the pause is over"
    until(lambda: MISSING not in mesh.page())
