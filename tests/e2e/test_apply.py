"""What `apply` and `delete` say when sidecars refuse, are away or do not answer, and what is in force then."""

import re

import pytest

from tests.e2e.conftest import RunningMesh, stopped, until, virtual_service

pytestmark = pytest.mark.e2e
REFUSED = virtual_service("details", 'headers: {request: {set: {x-a: "%NOPE%"}}}')
ABORT = virtual_service("details", "fault: {abort: {httpStatus: 418, percentage: {value: 100}}}")


def synced(mesh: RunningMesh, workload: str) -> bool:
    return next(one["synced"] for one in mesh.json("status")["workloads"] if one["name"] == workload)


def test_what_the_sidecars_refuse_is_told_in_their_words_and_the_old_configuration_stays_in_force(clean_bookinfo):
    done = clean_bookinfo.devmesh("apply", "-f", "-", stdin=REFUSED, check=False)
    assert done.returncode == 1
    assert "old configuration is in force" in done.stderr
    assert "productpage-v1: " in done.stderr
    assert "operator %NOPE% is not supported" in done.stderr
    assert "applied" not in done.stdout
    assert "The Comedy of Errors" in clean_bookinfo.page()
    gone = clean_bookinfo.devmesh("delete", "virtualservice", "details")
    assert "acknowledged" in gone.stderr, "they run it already and need not be waited for"


def test_a_sidecar_that_is_away_is_named_and_gets_it_on_return(clean_bookinfo):
    with clean_bookinfo.away("productpage-v1-sidecar"):
        done = clean_bookinfo.devmesh("apply", "-f", "-", stdin=ABORT)
        assert "productpage-v1 is not connected, will get it on return" in done.stderr
    told = clean_bookinfo.devmesh("wait", "--timeout", "30s").stderr
    assert re.findall(r"^  (\S+) +\d+\.\d\d s$", told, re.MULTILINE) == ["processes", "configuration", "apps", "ready"]
    assert "Sorry, product details are currently unavailable" in clean_bookinfo.page()


def test_a_sidecar_that_does_not_answer_in_time_is_named_and_nothing_is_lost(clean_bookinfo):
    with stopped(clean_bookinfo.pid("reviews-v3-sidecar")):
        done = clean_bookinfo.devmesh("apply", "-f", "-", "--timeout", "1s", stdin=ABORT, check=False)
        assert done.returncode == 1
        assert re.search(r"no answer within 1 s from .*\breviews-v3\b", done.stderr), "and whoever else was too busy"
        assert "hint: devmesh proxy-status" in done.stderr
    until(lambda: synced(clean_bookinfo, "reviews-v3"))
    assert "Sorry, product details are currently unavailable" in clean_bookinfo.page()
