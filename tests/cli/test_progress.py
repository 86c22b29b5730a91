"""What `up` and `wait` write while they last, where nobody looks at a terminal and where somebody does."""

import io

import pytest
from rich.console import Console

from devmesh.cli import output
from devmesh.cli.progress import Progress, few

EVENTS = [
    {"event": "phase", "name": "apps"},
    {"event": "note", "message": "2 pods [in] 0.1 s"},
    {"event": "diagnostic", "file": "a.yaml", "line": 3, "column": None, "severity": "warning", "code": "IST0101", "message": "no host"},
    {"event": "waiting", "for": ["db", "web"]},
    {"event": "phase_done", "name": "apps", "seconds": 1.5},
    {"event": "done", "seconds": 12.25},
]


def written(monkeypatch, *, terminal):
    screen = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=screen, force_terminal=terminal, highlight=False, soft_wrap=True, width=100))
    with Progress() as progress:
        for event in EVENTS:
            progress.tell(event)
    return screen.getvalue()


def test_each_part_has_its_seconds_and_who_is_awaited_has_a_line(monkeypatch):
    assert written(monkeypatch, terminal=False).splitlines() == [
        "  2 pods [in] 0.1 s",
        "  a.yaml:3: warning [IST0101] no host",
        "  apps: waiting for db, web",
        "  apps                         1.50 s",
        "  ready                       12.25 s",
        "",
    ]


@pytest.mark.parametrize("text", ["a.yaml:3: warning [IST0101] no host", "apps                         1.50 s", "12.25 s"])
def test_a_terminal_shows_the_same_lines(monkeypatch, text):
    assert text in written(monkeypatch, terminal=True)


@pytest.mark.parametrize(("names", "text"), [("abcd", "a, b, c, d"), ("abcdef", "a, b, c, d and 2 more")])
def test_of_many_that_are_awaited_a_few_are_named(names, text):
    assert few(list(names)) == text
