"""status: when certificates end, and what it means that they have."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from devmesh.cli.status import _condition, _say_apps, _say_ended, certificate
from devmesh.errors import DevmeshError
from devmesh.running import RunningMesh

NOW = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
ENDS = "2026-03-01T23:15:00.000Z"


@pytest.mark.parametrize(
    ("expires", "problem", "shown"),
    [
        (None, "", "-"),
        (ENDS, "", "23:15"),
        ("2026-03-05T23:15:00.000Z", "", "2026-03-05"),
        ("2026-03-01T22:29:00.000Z", "the CA does not answer", "ended"),
    ],
)
def test_a_certificate_is_its_end_or_that_it_has_ended(expires, problem, shown):
    assert certificate({"expires": expires, "problem": problem}, NOW) == shown


def test_the_end_is_shown_in_the_users_own_time_zone():
    here = NOW.astimezone(timezone(timedelta(hours=2)))
    assert certificate({"expires": ENDS, "problem": ""}, here) == "01:15"


def test_whose_certificates_have_ended_is_said_once_with_the_reason_and_the_next_command(capsys):
    workloads = [
        {"name": name, "certificate": {"expires": ENDS, "problem": problem}}
        for name, problem in (("web", "the CA does not answer"), ("api", "the CA does not answer"), ("db", ""))
    ]
    _say_ended(workloads)
    said = capsys.readouterr().err
    assert "ended: web, api\n  the CA does not answer\n" in said
    assert "devmesh logs ca" in said
    assert "db" not in said


class Sidecar:
    """A runtime whose one sidecar answers so."""

    def __init__(self, **answers):
        self.answers = {path.replace("_", "/", 1): value for path, value in answers.items()}

    async def ask_sidecar(self, workload, listener, path):
        if path not in self.answers:
            raise DevmeshError(f"{workload} does not answer", "devmesh status")
        return json.dumps(self.answers[path])


def chain(*expiries):
    return {"certificates": [{"cert_chain": [{"expiration_time": one} for one in expiries]}]}


@pytest.mark.parametrize(
    ("sidecar", "told"),
    [
        (Sidecar(_certs=chain(ENDS, "2027-01-01T00:00:00.000Z")), (ENDS, "")),
        (Sidecar(_certs={"certificates": []}), (None, "")),
        (Sidecar(), (None, "")),
        (
            Sidecar(_certs=chain("2026-03-01T22:00:00.000Z"), _server_info={"ca": {"error": "refused"}}),
            ("2026-03-01T22:00:00.000Z", "refused"),
        ),
        (
            Sidecar(_certs=chain("2026-03-01T22:00:00.000Z"), _server_info={}),
            ("2026-03-01T22:00:00.000Z", "a new one is being asked for"),
        ),
    ],
    ids=["valid", "none yet", "no sidecar", "ended", "ended just now"],
)
async def test_a_sidecar_is_asked_why_its_certificate_has_ended(tmp_path, monkeypatch, sidecar, told):
    monkeypatch.setattr(RunningMesh, "runtime", sidecar)
    assert await RunningMesh(tmp_path / "compose.yaml").certificate("web", NOW) == told


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "ready"),
        ({"done": True}, "done"),
        ({"done": True, "ready": False}, "not ready"),
        ({"held": True}, "paused"),
        ({"stopped": True, "ready": False, "healthy": False}, "stopped"),
        ({"ready": False, "healthcheck": {"status": "unhealthy"}}, "healthcheck unhealthy"),
        ({"ready": False, "healthcheck": {"status": "starting"}}, "healthcheck starting"),
        ({"healthcheck": {"status": "healthy"}}, "ready"),
        ({"ready": False, "exit_status": 6}, "ended with status 6"),
        ({"ready": False, "healthy": False, "exit_status": 0}, "ended with status 0, unhealthy"),
        ({"done": True, "exit_status": 0}, "done"),
        ({"ready": False, "healthy": False, "waits": "waits for db to be healthy"}, "not started"),
    ],
)
def test_a_workloads_state_is_what_is_wrong_with_it(changes, shown):
    good = {
        "held": False,
        "stopped": False,
        "done": False,
        "ready": True,
        "healthy": True,
        "synced": True,
        "healthcheck": None,
        "waits": "",
        "exit_status": None,
    }
    assert _condition(good | changes) == shown


def test_what_a_failing_healthcheck_said_and_why_an_app_is_not_started_are_shown(capsys):
    health = {"status": "unhealthy", "failures": 3, "output": "no route to disk"}
    _say_apps(
        [{"name": "db", "healthcheck": health, "waits": ""}, {"name": "web", "healthcheck": None, "waits": "waits for db to be healthy"}]
    )
    said = capsys.readouterr().err
    assert "db's healthcheck failed 3 times: no route to disk" in said
    assert "web is not started: waits for db to be healthy" in said
