"""Finding compose, and what it says; compose is a script here."""

import sys
from pathlib import Path

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.compose import Compose, Project, environment, files_of, merged


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, os\n{script}\n")
    path.chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(("name", "said"), [("docker", "2.26.1-4"), ("docker-compose", "v2.20.0")])
def test_the_plugin_or_the_standalone_binary_is_found(tmp_path, name, said):
    found = Compose.find(program(tmp_path, name, f"print({said!r})"))
    assert found.command[0] == str(tmp_path / name)
    assert found.version[0] == 2


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("docker", "sys.exit(1)", "docker compose 2.20 or later is needed and not found"),
        ("docker-compose", "print('1.29.2')", "docker-compose is 1.29.2"),
    ],
)
def test_an_engine_without_compose_is_an_error_with_both_ways_out(tmp_path, name, script, words):
    with pytest.raises(DevmeshError, match=words) as caught:
        Compose.find(program(tmp_path, name, script))
    assert caught.value.hint == "install the compose plugin, or devmesh up --runtime local runs plain processes instead"


def test_a_compose_file_with_errors_is_told_in_composes_words(tmp_path):
    script = 'sys.stderr.write(\'time="x" level=warning msg="no"\\nvalidating compose.yaml: services.web.ports must be a list\\n\'); sys.exit(15)'
    program(tmp_path, "docker", script)
    with pytest.raises(DevmeshError) as caught:
        Compose((str(tmp_path / "docker"), "compose"), (2, 20)).config(tmp_path / "compose.yaml")
    assert caught.value.message == f"{tmp_path / 'compose.yaml'}: validating compose.yaml: services.web.ports must be a list"


def test_profiles_reach_compose(tmp_path):
    program(tmp_path, "docker", "import json; print(json.dumps(sys.argv[1:]))")
    said = Compose((str(tmp_path / "docker"), "compose"), (2, 20)).config(tmp_path / "compose.yaml", ["site", "jobs"])
    assert said == ["compose", "-f", str(tmp_path / "compose.yaml"), "--profile", "site", "--profile", "jobs", "config", "--format", "json"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("no such file", "build web shows the same; or devmesh up --runtime local"),
        ("write /x: No space left on device", "docker system df shows what takes it"),
    ],
)
def test_a_build_that_fails_shows_its_last_lines_and_what_to_do(tmp_path, words, hint):
    program(tmp_path, "docker", f"print('step 1'); print({words!r}); sys.exit(17)")
    said: list[str] = []
    with pytest.raises(DevmeshError, match=f"docker compose build failed for web:\nstep 1\n{words}") as caught:
        Compose((str(tmp_path / "docker"), "compose"), (2, 20)).follow(tmp_path / "compose.yaml", ("build", "web"), said.append, " for web")
    assert said == ["step 1", words]
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("words", "runs"), [("tried to kill container, but did not receive an exit event", 2), ("network x has active endpoints", 1)]
)
def test_a_down_is_tried_again_where_the_engine_missed_a_containers_end(tmp_path, words, runs):
    log = tmp_path / "log"
    script = f"""log = open({str(log)!r}, "a+"); log.write(" ".join(sys.argv[1:]) + "\\n"); log.seek(0)
if len(log.readlines()) == 1: sys.stderr.write({words!r}); sys.exit(1)"""
    program(tmp_path, "docker", script)
    compose, project = Compose((str(tmp_path / "docker"), "compose"), (2, 20)), Project("shop", Path("/x.yaml"))
    if runs == 1:
        with pytest.raises(DevmeshError, match=f"docker compose down failed: {words}"):
            compose.down(project, "--volumes")
    else:
        compose.down(project, "--volumes")
    assert log.read_text().splitlines() == ["compose --project-name shop --file /x.yaml down --remove-orphans --volumes"] * runs


def test_a_rendered_project_is_named_whatever_the_users_variables_say(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "theirs")
    monkeypatch.setenv("COMPOSE_PROFILES", "theirs")
    assert not {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"} & environment().keys()
    command = Compose(("docker", "compose"), (2, 20)).arguments(Project("shop", Path("/x.yaml")), "down")
    assert command == ["docker", "compose", "--project-name", "shop", "--file", "/x.yaml", "down"]


def test_an_override_is_named_to_compose_beside_the_file(tmp_path):
    (tmp_path / "compose.override.yml").write_text("services: {}\n")
    assert files_of(tmp_path / "compose.yaml") == ["-f", str(tmp_path / "compose.yaml"), "-f", str(tmp_path / "compose.override.yml")]
    assert files_of(tmp_path / "other.yaml") == ["-f", str(tmp_path / "other.yaml")]


def test_a_project_of_several_files_without_compose_is_an_error_that_says_what_it_is_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevmeshError, match=r"made of several files .* which compose reads: docker compose 2.20 or later is needed"):
        merged(tmp_path / "compose.yaml")()


def test_what_devmesh_is_told_in_several_files_is_taken_from_where_compose_keeps_it(tmp_path):
    """`config --format json` leaves extensions of services out (compose 2.26); the YAML has them."""
    yaml = "services: {web: {image: x, x-devmesh: {protocol: http}}, db: {image: x}}\nx-devmesh: {namespace: shop}\n"
    plain = {"name": "a", "services": {"web": {"image": "x"}, "db": {"image": "x"}}}
    program(tmp_path, "docker", f"import json; print(json.dumps({plain!r}) if 'json' in sys.argv else {yaml!r})")
    whole = Compose((str(tmp_path / "docker"), "compose"), (2, 20)).whole(tmp_path / "compose.yaml")
    assert whole == {
        "name": "a",
        "services": {"web": {"image": "x", "x-devmesh": {"protocol": "http"}}, "db": {"image": "x"}},
        "x-devmesh": {"namespace": "shop"},
    }
