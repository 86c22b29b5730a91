"""What goes into the devmesh image, when it is made anew, and what a failed build says; compose is a script here, the real one in tests/e2e."""

import json
import sys

import pytest
from docker.errors import ImageNotFound

import devmesh
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.build import BuildContext, build_context, ensure_devmesh

BASE = "python:3.11-slim-bookworm"


class Engine:
    """The part of docker.DockerClient that looks for images."""

    def __init__(self, *has):
        self.has = has
        self.images = self

    def get(self, reference):
        if reference not in self.has:
            raise ImageNotFound(reference)


def compose(folder, script):
    """A command in the place of `docker compose`: keeps the project it is given as seen.json, then runs `script`."""
    program = folder / "compose.py"
    program.write_text(
        "import json, os, pathlib, sys\n"
        "project = json.loads(pathlib.Path(sys.argv[sys.argv.index('--file') + 1]).read_text())\n"
        "project['environment'] = dict(os.environ)\n"
        "project['text'] = {name: pathlib.Path(one['file']).read_text() for name, one in project['secrets'].items()}\n"
        "context = pathlib.Path(project['services']['devmesh']['build']['context'])\n"
        "project['files'] = sorted(str(one.relative_to(context)) for one in context.rglob('*') if one.is_file())\n"
        f"pathlib.Path({str(folder / 'seen.json')!r}).write_text(json.dumps(project))\n{script}\n"
    )
    return sys.executable, str(program)


def test_the_context_is_the_package_and_what_it_needs_in_the_versions_installed_here():
    files = build_context(BASE).files
    assert files["devmesh/sidecar/__main__.py"]
    assert files["devmesh/xds/descriptors.binpb.gz"]
    assert b"aiohttp" in files["requirements.txt"]
    pinned = dict(line.split("==") for line in files["constraints.txt"].decode().splitlines())
    assert {"aiohttp", "yarl", "pydantic-core"} <= pinned.keys()
    assert "pytest" not in pinned
    assert not [name for name in files if "__pycache__" in name or name.endswith(".so")]


@pytest.mark.parametrize("changed", [{"devmesh/a.py": b"2"}, {"Dockerfile": b"2"}, {"constraints.txt": b"2"}, {"new": b""}])
def test_whatever_changes_the_image_changes_its_name(changed):
    files = {"devmesh/a.py": b"1", "Dockerfile": b"1", "constraints.txt": b"1"}
    before = BuildContext(files, BASE)
    assert BuildContext(dict(reversed(files.items())), BASE).reference == before.reference
    assert BuildContext(files | changed, BASE).reference != before.reference
    assert BuildContext(files, "other").reference != before.reference
    assert before.reference.startswith(f"devmesh:{devmesh.__version__}-")


def test_an_image_that_is_there_is_not_made_again(tmp_path):
    reference = build_context(BASE).reference
    assert ensure_devmesh(Engine(reference), compose(tmp_path, "sys.exit(1)"), lambda *_: None, {}) == reference


def test_an_override_is_taken_as_it_is(tmp_path):
    found = ensure_devmesh(Engine("mine:1"), compose(tmp_path, "sys.exit(1)"), lambda *_: None, {"DEVMESH_IMAGE": "mine:1"})
    assert found == "mine:1"


def test_a_build_is_given_context_base_and_secrets_and_tells_its_steps(tmp_path):
    said = []
    script = "print('#5 [devmesh packages 2/4] RUN x')\nprint('#5 0.1 noise')"
    environment = {"DEVMESH_PYTHON_IMAGE": "base:1", "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "https://user:secret@index.example"}
    environment |= {"https_proxy": "http://proxy.example", "COMPOSE_PROFILES": "own"}
    reference = ensure_devmesh(Engine("base:1"), compose(tmp_path, script), lambda *words: said.append(words), environment)
    assert said == [(reference, "building, packages 2/4")]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert (seen["environment"].get("COMPOSE_PROFILES"), seen["environment"]["DOCKER_BUILDKIT"]) == (None, "1")
    service = seen["services"]["devmesh"]
    assert service["image"] == reference
    assert {"Dockerfile", "requirements.txt", "constraints.txt", "devmesh/__init__.py"} <= set(seen["files"])
    assert "https://user:secret@index.example" in seen["text"]["pip.conf"]
    assert "index.example" not in json.dumps(seen["services"])
    assert service["build"]["args"] == {"BASE": "base:1", "https_proxy": "http://proxy.example"}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("#9 ERROR: write /x: no space left on device", "no space left on the engine's disk", "docker system prune"),
        ("#9 Could not find a version that satisfies the requirement", "Could not find a version", "DEVMESH_PYTHON_IMAGE"),
        ("failed to solve: dial tcp", "failed to solve: dial tcp", "devmesh up --runtime local"),
    ],
)
def test_a_failed_build_says_its_last_words_and_what_to_do(tmp_path, words, message, hint):
    command = compose(tmp_path, f"print({words!r})\nsys.exit(17)")
    with pytest.raises(DevmeshError) as raised:
        ensure_devmesh(Engine(BASE), command, lambda *_: None, {"PIP_CONFIG_FILE": "/dev/null"})
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")
