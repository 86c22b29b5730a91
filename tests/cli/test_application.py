"""What a shell sees of a command that was not meant like that."""

import os
import subprocess
import sys

import pytest
import typer

from devmesh.cli.application import COMMANDS, application
from devmesh.runtimes.files import MeshFiles


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


def completed(line: str, cwd=None) -> list[str]:
    """What a shell offers at the end of a line."""
    environment = {**os.environ, "_DEVMESH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    program = "import sys; sys.argv[0] = 'devmesh'; from devmesh.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, cwd=cwd)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_shell_completes_commands():
    assert completed("devmesh proxy-") == ["proxy-status", "proxy-config"]


def test_a_shell_completes_faults_with_the_services_and_workloads_of_the_mesh_here(tmp_path):
    (tmp_path / "compose.yaml").touch()
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    files.write_state(
        {"workloads": {"reviews-v1": {"service": "reviews"}, "reviews-v2": {"service": "reviews"}, "web": {"service": "web"}}}
    )
    assert completed("devmesh fault inject --partition web re", tmp_path) == ["reviews", "reviews-v1", "reviews-v2"]


def names(app: typer.Typer) -> set[str]:
    return set(typer.main.get_command(app).commands)


def test_every_command_is_found_alone_and_listed_among_all():
    listed = [name for found in COMMANDS.values() for name in found]
    assert names(application()) == set(listed)
    for module, found in COMMANDS.items():
        assert names(application(found[0])) == set(found), module


def test_up_imports_no_client_of_registry_or_engine():
    program = (
        "import sys; from devmesh.cli.application import application; application('up')\n"
        "from pathlib import Path; from devmesh.running import RunningMesh; RunningMesh(Path('compose.yaml')).runtime\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "devmesh.runtimes.local.runtime" in loaded
    assert not {"aiohttp", "consul", "requests", "docker", "devmesh.mesh"} & set(loaded)


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
