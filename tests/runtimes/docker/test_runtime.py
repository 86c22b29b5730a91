"""What the Docker runtime says of an app that cannot be entered."""

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.engine import Container
from devmesh.runtimes.docker.runtime import refuse_unless_running


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        ("exited", "web does not run: it ended with status 6", "devmesh logs web"),
        ("restarting", "web does not run: it ended with status 6", "devmesh logs web"),
        ("created", "web does not run", "devmesh start web"),
        ("paused", "web is paused", "docker unpause shop-web-1"),
    ],
)
def test_an_app_that_does_not_run_is_named_with_what_to_do(state, message, hint):
    with pytest.raises(DevmeshError) as refused:
        refuse_unless_running("web", Container("web", "id", "shop-web-1", state, "", 6, "", 0, "", {}, "", "no", {}))
    assert refused.value.message == message
    assert hint in str(refused.value.hint)


def test_an_app_that_runs_may_be_entered_and_one_that_is_gone_is_said_to_be():
    refuse_unless_running("web", Container("web", "id", "shop-web-1", "running", "", 0, "", 0, "", {}, "", "no", {}))
    with pytest.raises(DevmeshError, match="the container of web is gone"):
        refuse_unless_running("web", None)
