"""What a shell sees of a command that was not meant like that."""

import os
import subprocess
import sys

import pytest


def devmesh(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "devmesh.cli.app", *arguments], capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "--nope"), "No such option: --nope"),
        (("nope",), "No such command 'nope'"),
        (("apply",), "Missing option '-f' / '--filename'"),
        (("status", "-o", "toml"), "'toml' is not one of"),
    ],
)
def test_a_usage_error_is_one_sentence_on_stderr_and_exit_status_2(arguments, words):
    done = devmesh(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert f"\n\nhint: devmesh {arguments[0]} --help" in done.stderr or "\n\nhint: devmesh --help" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("fault",), ("traces",)])
def test_a_group_without_a_command_shows_its_help(arguments):
    done = devmesh(*arguments)
    assert done.returncode == 2
    assert "Usage: " in done.stdout + done.stderr
    assert "error:" not in done.stderr


def test_an_error_of_the_users_has_a_hint_and_exit_status_1(tmp_path):
    done = devmesh("status", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "\n\nhint: " in done.stderr


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "devmesh.cli.app", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_asks_devmesh_for_its_words(shell):
    done = devmesh("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_DEVMESH_COMPLETE=complete_" in done.stdout


def test_a_shell_completes_commands():
    environment = {**os.environ, "_DEVMESH_COMPLETE": "complete_bash", "COMP_WORDS": "devmesh proxy-", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'devmesh'; from devmesh.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["proxy-status", "proxy-config"]


def test_analyze_says_each_thing_once_with_its_place(tmp_path):
    (tmp_path / "compose.yaml").write_text("services: {web: {image: web, expose: ['80']}}\n")
    (tmp_path / "rules.yaml").write_text(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a}\nspec: {}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec: {hosts: [web], htp: []}\n"
    )
    done = devmesh("analyze", "-f", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 1
    said = [line.partition(" ")[0] for line in done.stderr.splitlines() if line.startswith("rules.yaml")]
    assert said == ["rules.yaml:2:1:", "rules.yaml:9:22:"]
