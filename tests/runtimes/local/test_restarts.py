"""compose's `restart`, and what an app without one gets."""

import pytest

from devmesh.runtimes.local.restarts import comes_back


@pytest.mark.parametrize(
    ("policy", "status", "restarts", "listens", "again"),
    [
        ("", 0, 0, False, False),
        ("", 1, 0, False, True),
        ("", -9, 0, False, True),
        ("", 0, 0, True, True),
        ("no", 0, 0, True, False),
        ("no", -9, 0, True, False),
        ("always", 0, 5, False, True),
        ("unless-stopped", 0, 5, False, True),
        ("on-failure", 0, 0, True, False),
        ("on-failure", 3, 50, False, True),
        ("on-failure:2", 3, 1, False, True),
        ("on-failure:2", 3, 2, False, False),
    ],
)
def test_who_is_started_again(policy, status, restarts, listens, again):
    assert comes_back(policy, status, restarts, listens=listens) is again
