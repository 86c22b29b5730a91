"""`depends_on`: both syntaxes, what else compose takes for one, and what it refuses."""

import pytest

from devmesh.config.dependencies import COMPLETED, HEALTHY, STARTED, Dependency, read_dependencies


def read(service):
    """(what was read, what is wrong with it)"""
    wrong = []
    found = read_dependencies(service, "s", lambda path, message, hint: wrong.append((path, message, hint)))
    return [(one.name, one.condition, one.required, one.restart) for one in found], wrong


@pytest.mark.parametrize(
    ("service", "meant"),
    [
        ({}, []),
        ({"depends_on": ["a", "b"]}, [("a", STARTED, True, False), ("b", STARTED, True, False)]),
        ({"depends_on": {"a": {"condition": HEALTHY, "restart": True}}}, [("a", HEALTHY, True, True)]),
        ({"depends_on": {"a": {"condition": COMPLETED, "required": False, "x-why": 1}}}, [("a", COMPLETED, False, False)]),
        ({"links": ["a:db", "b"]}, [("a", STARTED, True, True), ("b", STARTED, True, True)]),
        ({"links": ["a"], "depends_on": {"a": {"condition": HEALTHY}}}, [("a", HEALTHY, True, False)]),
        (
            {"volumes_from": ["a:ro", "container:other"], "network_mode": "service:b"},
            [("a", STARTED, True, False), ("b", STARTED, True, True)],
        ),
        ({"network_mode": "host", "pid": "service:c"}, [("c", STARTED, True, True)]),
    ],
)
def test_whom_a_service_waits_for(service, meant):
    assert read(service) == (meant, [])


@pytest.mark.parametrize(
    ("value", "path", "message", "hint"),
    [
        ("a", "", "s.depends_on must be a list of names", None),
        ({"a": None}, ".a", "s.depends_on.a must be a mapping", "write a: {condition: service_started}"),
        ({"a": {}}, ".a.condition", "s.depends_on.a.condition is missing", "it is one of service_started, service_healthy,"),
        ({"a": {"condition": "healthy"}}, ".a.condition", 's.depends_on.a.condition is "healthy"', 'did you mean "service_healthy"?'),
        (
            {"a": {"condition": STARTED, "require": True}},
            ".a.require",
            'unknown field "s.depends_on.a.require"',
            'did you mean "required"?',
        ),
        ({"a": {"condition": STARTED, "restart": "yes"}}, ".a.restart", "s.depends_on.a.restart must be true or false, not 'yes'", None),
    ],
)
def test_mistakes_are_named_with_their_place(value, path, message, hint):
    _, [(where, what, then)] = read({"depends_on": value})
    assert (where, what) == (f"s.depends_on{path}", message)
    assert then == hint or (hint and then.startswith(hint))


@pytest.mark.parametrize(("condition", "words"), [(STARTED, "db to start"), (HEALTHY, "db to be healthy"), (COMPLETED, "db to complete")])
def test_what_is_waited_for_in_words(condition, words):
    assert str(Dependency("db", condition)) == words
