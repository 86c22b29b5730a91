"""The list of images, and what a pull says when it goes wrong, from an engine with a script."""

import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import requests
from docker.errors import APIError, ImageNotFound

import devmesh
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.images import Image, PullProgress, ensure, image
from devmesh.runtimes.packaged import compose_folder

CONSUL = Image("consul", "hashicorp/consul:1.21.3", "DEVMESH_CONSUL_IMAGE", overridden=False)


class ScriptedEngine:
    """The part of docker.DockerClient that a pull uses; `script` are the events of one pull (an exception is raised), `arrives` what it brings."""

    def __init__(self, script=(), *, has=(), arrives=CONSUL.reference):
        self.script, self.has, self.arrives = script, set(has), arrives
        self.pulled = []
        self.images = self.api = self

    def get(self, reference):
        if reference not in self.has:
            raise ImageNotFound(reference)

    def pull(self, name, tag, *, stream, decode):
        self.pulled.append((name, tag))
        for event in self.script:
            if isinstance(event, Exception):
                raise event
            yield event
        if self.arrives:
            self.has.add(self.arrives)


def downloading(layer, here, total):
    return {"status": "Downloading", "id": layer, "progressDetail": {"current": here, "total": total}}


@pytest.mark.parametrize("role", ["consul", "jaeger", "prometheus", "grafana", "python"])
def test_every_image_is_pinned_and_has_an_override_of_its_own(role):
    pinned = image(role, {})
    name, _, tag = pinned.reference.rpartition(":")
    assert name
    assert tag not in ("", "latest")
    assert not pinned.overridden
    exchanged = image(role, {pinned.variable: "mine:1"})
    assert (exchanged.reference, exchanged.overridden) == ("mine:1", True)
    assert pinned.variable in (compose_folder() / "images.yaml").read_text()


def test_only_what_is_missing_is_pulled():
    engine = ScriptedEngine(has=[CONSUL.reference])
    ensure(engine, [CONSUL], lambda *_: None)
    assert engine.pulled == []


def test_progress_adds_up_the_layers_and_repeats_nothing():
    said = []
    script = [
        {"status": "Pulling from hashicorp/consul", "id": "1.21.3"},
        downloading("a", 1_000_000, 40_000_000),
        downloading("a", 1_000_001, 40_000_000),
        downloading("b", 10_000_000, 18_000_000),
        {"status": "Download complete", "id": "a", "progressDetail": {}},
        {"status": "Download complete", "id": "unknown"},
    ]
    ensure(ScriptedEngine(script), [CONSUL], lambda reference, text: said.append(f"{reference} {text}"))
    assert said == [
        "hashicorp/consul:1.21.3 pulling",
        "hashicorp/consul:1.21.3 pulling, 1 of 40 MB",
        "hashicorp/consul:1.21.3 pulling, 11 of 58 MB",
        "hashicorp/consul:1.21.3 pulling, 50 of 58 MB",
    ]


def test_a_layer_that_was_cut_off_is_said_to_be_tried_again_until_it_comes():
    said = []
    again = [{"status": f"Retrying in {seconds} seconds", "id": "a"} for seconds in (2, 1)]
    script = [downloading("a", 1_000_000, 4_000_000), *again, downloading("a", 2_000_000, 4_000_000)]
    ensure(ScriptedEngine(script), [CONSUL], lambda _, text: said.append(text))
    assert said == ["pulling, 1 of 4 MB", "pulling, 1 of 4 MB, cut off: the engine tries again", "pulling, 2 of 4 MB"]


def test_a_registry_that_falls_silent_is_not_waited_for_without_end():
    ended = threading.Event()

    class Silent(ScriptedEngine):
        def pull(self, *_, **__):
            yield downloading("a", 1, 9)
            ended.wait()

    with pytest.raises(DevmeshError, match=r"hashicorp/consul:1.21.3 \(consul\) stopped half-way: nothing came for 0.01 s") as raised:
        ensure(Silent(), [CONSUL], lambda *_: None, silent=0.01)
    ended.set()
    assert "set DEVMESH_CONSUL_IMAGE" in (raised.value.hint or "")


def test_before_the_first_layer_there_is_no_number():
    assert PullProgress().text == "pulling"


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        ("mine", ("mine", "latest")),
        ("localhost:5000/mine", ("localhost:5000/mine", "latest")),
        ("localhost:5000/mine:2", ("localhost:5000/mine", "2")),
        ("mine@sha256:00", ("mine@sha256:00", None)),
    ],
)
def test_a_reference_is_one_image_whatever_its_form(reference, asked):
    engine = ScriptedEngine(arrives=reference)
    ensure(engine, [Image("consul", reference, "DEVMESH_CONSUL_IMAGE", overridden=True)], lambda *_: None)
    assert engine.pulled == [asked]


NO_NETWORK = APIError("500", explanation="dial tcp: lookup registry-1.docker.io: no such host")
MISSING = ImageNotFound("404", explanation="manifest for hashicorp/consul:1.21.3 not found")
FULL = "write /var/lib/docker/tmp/x: no space left on device"


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ([NO_NETWORK], "cannot be pulled: dial tcp", "set DEVMESH_CONSUL_IMAGE"),
        ([MISSING], "cannot be pulled: manifest", "devmesh up --runtime local"),
        ([{"error": "unexpected EOF"}], "cannot be pulled: unexpected EOF", "set DEVMESH_CONSUL_IMAGE"),
        ([downloading("a", 1, 9), {"error": "unexpected EOF"}], "stopped half-way: unexpected EOF", "docker pull hashicorp/consul:1.21.3"),
        # the engine need not report a single byte before it gives up
        ([{"status": "Pulling fs layer", "id": "a"}, {"error": "unexpected EOF"}], "stopped half-way: unexpected EOF", "docker pull"),
        ([downloading("a", 1, 9), requests.ConnectionError("aborted")], "stopped half-way: aborted", "docker pull"),
        ([downloading("a", 1, 9)], "stopped half-way: the engine stopped sending", "docker pull"),
        ([downloading("a", 1, 9), {"error": FULL}], "no space left on the engine's disk", "docker system prune"),
    ],
)
def test_a_pull_that_fails_names_image_reason_and_what_to_do(script, message, hint):
    with pytest.raises(DevmeshError) as raised:
        ensure(ScriptedEngine(script, arrives=""), [CONSUL], lambda *_: None)
    assert "hashicorp/consul:1.21.3 (consul)" in raised.value.message
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")


def test_a_built_package_carries_the_list_and_the_dockerfile(tmp_path):
    root = Path(devmesh.__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("devmesh-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in ("images.yaml", "Dockerfile"):
            assert packed.read(f"devmesh/compose/{name}") == (root / "compose" / name).read_bytes()
