"""`healthcheck`: what is run and when, and what compose or the engine would refuse."""

import pytest

from devmesh.config.healthcheck import Healthcheck, read_healthcheck


def read(value):
    """(what was read, what is wrong with it)"""
    wrong = []
    found = read_healthcheck(value, "s.healthcheck", lambda path, message, hint: wrong.append((path, message, hint)))
    return found, wrong


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ({"test": "curl -f localhost"}, Healthcheck(("/bin/sh", "-c", "curl -f localhost"))),
        ({"test": ["CMD-SHELL", "curl -f localhost"]}, Healthcheck(("/bin/sh", "-c", "curl -f localhost"))),
        ({"test": ["CMD", "curl", "-f", "localhost"]}, Healthcheck(("curl", "-f", "localhost"))),
        (
            {"test": "x", "interval": "1m30s", "timeout": "2s", "retries": 5, "start_period": "500ms", "start_interval": "100ms"},
            Healthcheck(("/bin/sh", "-c", "x"), 90.0, 2.0, 5, 0.5, 0.1),
        ),
        (
            {"test": "x", "interval": "0s", "timeout": 0, "retries": "0", "x-mine": 1},
            Healthcheck(("/bin/sh", "-c", "x"), 30.0, 30.0, 3, 0.0, 5.0),
        ),
        ({"test": ["NONE"]}, None),
        ({"test": "x", "disable": True}, None),
        ({"interval": "1s"}, None),
        ({"test": []}, None),
        (None, None),
    ],
)
def test_what_is_run_and_when(value, meant):
    assert read(value) == (meant, [])


@pytest.mark.parametrize(
    ("value", "path", "message", "hint"),
    [
        (["x"], "", "s.healthcheck must be a mapping", "write healthcheck: {test: [CMD, ...]}"),
        ({"test": "x", "intervall": "1s"}, ".intervall", 'unknown field "s.healthcheck.intervall"', 'did you mean "interval"?'),
        ({"test": ["CMDSHELL", "x"]}, ".test", 'must begin with CMD, CMD-SHELL or NONE, not "CMDSHELL"', 'did you mean "CMD-SHELL"?'),
        ({"test": ["CMD"]}, ".test", "names no command after CMD", None),
        ({"test": 3}, ".test", "must be text or a list, not 3", None),
        ({"test": "x", "interval": "often"}, ".interval", '"often" is not a duration', None),
        ({"test": "x", "start_period": 5}, ".start_period", '"5" is not a duration', None),
        ({"test": "x", "timeout": "-1s"}, ".timeout", "it cannot be less than 1ms", None),
        ({"test": "x", "start_interval": "10us"}, ".start_interval", "it cannot be less than 1ms", None),
        ({"test": "x", "retries": "two"}, ".retries", "must be a number, not 'two'", None),
        ({"test": "x", "retries": -1}, ".retries", "must be a number, not -1", None),
    ],
)
def test_mistakes_are_named_with_their_place(value, path, message, hint):
    _, [(where, what, then)] = read(value)
    assert (where, then) == (f"s.healthcheck{path}", hint)
    assert message in what
