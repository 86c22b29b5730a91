"""fault: what its options ask for, how a fault is shown."""

import pytest
from typer.testing import CliRunner

from devmesh.cli import fault
from devmesh.config.injection import FaultRequest
from devmesh.errors import UsageError
from devmesh.mesh import Applied, Mesh


@pytest.fixture
def asked(monkeypatch):
    """The requests that reach the mesh."""
    found = []

    async def inject(_, request):
        found.append(request)
        return "f1", Applied("g", 0.01, [{"state": "acked"}], [])

    monkeypatch.setattr(Mesh, "of", lambda *_: Mesh.__new__(Mesh))
    monkeypatch.setattr(Mesh, "inject", inject)
    return found


@pytest.mark.parametrize(
    ("arguments", "request_", "note"),
    [
        ("web --pause --for 90s", FaultRequest("web", pause=True, lifetime=90), "web stands still"),
        ("web-v1 --kill", FaultRequest("web-v1", kill=True), "web-v1 is killed"),
        ("--partition web api", FaultRequest("web", partition="api"), "in force at 1 sidecars after 10 ms"),
        ("web --abort 503 --percent 20 --from api", FaultRequest("web", 503, percent=20, caller="api"), "in force at 1"),
    ],
)
def test_options_become_the_request_that_they_ask_for(asked, arguments, request_, note):
    done = CliRunner().invoke(fault.app, ["inject", *arguments.split()])
    assert (done.exit_code, asked) == (0, [request_]), done.output
    assert done.stdout == "f1\n"
    assert done.stderr.startswith(note)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "the target is missing"),
        ("web", "a fault needs --abort STATUS"),
        ("web --kill --abort 503", "--kill and --abort do not go together"),
        ("web --partition a b", "--partition names both of its sides: 'web' is one too many"),
        ("web --pause --for soon", "--for 'soon' is no duration"),
    ],
)
def test_what_does_not_go_together_never_reaches_the_mesh(asked, arguments, words):
    done = CliRunner().invoke(fault.app, ["inject", *arguments.split()])
    assert isinstance(done.exception, UsageError)
    assert words in done.exception.message
    assert asked == []


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        ({"target": "web", "partition": "api"}, ("web | api", "partition")),
        ({"target": "web", "pause": True}, ("web", "pause")),
        ({"target": "web", "kill": True}, ("web", "kill")),
        (
            {"target": "web", "abort": {"httpStatus": 503, "percentage": 20.0}, "delay": {"fixedDelay": 0.3, "percentage": 20.0}},
            ("web", "delay 0.3s 20%, abort 503 20%"),
        ),
    ],
)
def test_a_fault_is_shown_with_its_sides_and_what_it_does(one, shown):
    assert (fault.target(one), fault.what(one)) == shown


@pytest.mark.parametrize(
    ("hits", "listed", "cleared"),
    [
        (1, "1", "f1: cleared, fired 1 time\n"),
        (0, "0", "f1: cleared, fired 0 times\n"),
        (None, "unknown", "f1: cleared, how often it fired is unknown: no answer from the sidecar of web-v1\n"),
    ],
)
def test_hits_that_nobody_tells_are_unknown(monkeypatch, hits, listed, cleared):
    one = {"id": "f1", "target": "web", "state": "in force", "hits": hits, "silent": [] if hits is not None else ["web-v1"]}

    async def faults(_):
        return [one]

    async def clear(*_):
        return [one], Applied("g", 0.01, [], [])

    monkeypatch.setattr(Mesh, "of", lambda *_: Mesh.__new__(Mesh))
    monkeypatch.setattr(Mesh, "faults", faults)
    monkeypatch.setattr(Mesh, "clear_faults", clear)
    assert CliRunner().invoke(fault.app, ["list"]).stdout.split()[-1] == listed
    assert CliRunner().invoke(fault.app, ["clear"]).stdout == cleared
