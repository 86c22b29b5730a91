"""Which workload a command means."""

import pytest

from devmesh.cli.inspect import _workload, lag
from devmesh.errors import DevmeshError


class ScriptedMesh:
    def state(self):
        services = {"web-v1": "web", "reviews-v1": "reviews", "reviews-v2": "reviews", "web": "shop"}
        return {"workloads": {name: {"service": service} for name, service in services.items()}}


@pytest.mark.parametrize(
    ("asked", "meant", "said"),
    [
        ("reviews-v2", "reviews-v2", ""),
        ("reviews", "reviews-v1", "reviews has 2 workloads, this is reviews-v1; the others: reviews-v2\n"),
        ("shop", "web", ""),
        ("web", "web", ""),
    ],
)
def test_a_workload_by_its_name_or_the_first_of_a_service_which_says_so(asked, meant, said, capsys):
    assert _workload(ScriptedMesh(), asked) == meant
    assert capsys.readouterr() == ("", said)


def test_nobody_is_an_error_that_names_who_there_is():
    with pytest.raises(DevmeshError, match="no workload or service 'nobody'") as caught:
        _workload(ScriptedMesh(), "nobody")
    assert caught.value.hint == "one of: web-v1, reviews-v1, reviews-v2, web"


WELL = {"workload": "web-v1", "error": None, "synced": True, "connected": True, "last_seen": None, "version_sent": "b"}


@pytest.mark.parametrize(
    ("news", "words"),
    [
        ({}, ""),
        ({"error": "no such cluster", "synced": False}, "no such cluster"),
        ({"synced": False}, "was sent b, has not answered yet"),
        ({"connected": False}, "never heard of: devmesh logs web-v1-sidecar"),
        ({"connected": False, "last_seen": "2026-01-02T03:04:05Z"}, ":05: devmesh logs web-v1-sidecar"),
    ],
)
def test_a_sidecar_that_is_not_in_sync_says_why(news, words):
    assert lag(WELL | news).endswith(words)
