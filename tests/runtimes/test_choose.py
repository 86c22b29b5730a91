"""Which runtime `up` takes."""

import pytest

from devmesh.errors import DevmeshError, UsageError
from devmesh.runtimes.choose import choose


def away():
    raise DevmeshError("no Docker engine answers at unix:///x", "start it")


@pytest.mark.parametrize(
    ("asked", "environ", "look", "expected"),
    [
        ("docker", {}, away, ("docker", None)),
        ("local", {"DEVMESH_RUNTIME": "docker"}, None, ("local", None)),
        (None, {"DEVMESH_RUNTIME": "local"}, None, ("local", None)),
        (None, {}, lambda: None, ("docker", None)),
        ("auto", {}, away, ("local", "no Docker engine answers at unix:///x")),
    ],
)
def test_the_option_the_variable_then_what_answers(asked, environ, look, expected):
    assert choose(asked, environ, look) == expected


@pytest.mark.parametrize(
    ("asked", "environ", "words"), [("podman", {}, "--runtime 'podman'"), (None, {"DEVMESH_RUNTIME": "x"}, "DEVMESH_RUNTIME 'x'")]
)
def test_an_unknown_runtime_says_where_it_was_asked_for(asked, environ, words):
    with pytest.raises(UsageError, match=words):
        choose(asked, environ)
