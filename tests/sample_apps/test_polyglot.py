"""The compose file that was not written for devmesh does its work without it, on a real engine."""

import json
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "sample-apps" / "polyglot"
PORT = 18431

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def shop(docker_environment):
    def compose(*arguments, check=True):
        command = [
            "docker",
            "compose",
            "--ansi",
            "never",
            "--project-name",
            "polyglot-plain",
            "--file",
            str(FOLDER / "compose.yaml"),
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=docker_environment | {"WEB_PORT": str(PORT)})
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    try:
        compose("up", "--detach", "--build", "--wait")
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "5", check=False)


def visit():
    done = subprocess.run(["curl", "-sS", "-m", "30", f"http://127.0.0.1:{PORT}/"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_visit_goes_through_every_service(shop):
    first, second = visit(), visit()
    assert first["items"] == [{"name": "apple", "price": 3}, {"name": "bread", "price": 5}, {"name": "cheese", "price": 9}]
    assert second["visits"] > first["visits"]


def test_an_unreachable_database_is_an_answer_not_a_hang(shop):
    shop("stop", "--timeout", "5", "db")
    try:
        assert visit()["status"] == 503
    finally:
        shop("up", "--detach", "--wait", "--no-recreate")
    assert visit()["status"] == 200


def test_the_visitor_sees_the_page(shop):
    # compose puts a terminal's erase code before a line, whatever --ansi says
    pages = [json.loads(line[line.index("{") :]) for line in shop("logs", "--no-log-prefix", "visitor").splitlines() if "{" in line]
    assert pages
    assert pages[0]["status"] == 200
