"""Pulls and builds that go well or wrong on a real engine: what the user is told, in the engine's own words and ours."""

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.build import BuildContext, build, ensure_devmesh
from devmesh.runtimes.docker.images import Image, ensure, image, present
from tests.e2e.conftest import RunningMesh
from tests.support.image_registry import registry

pytestmark = pytest.mark.e2e
COMPOSE = ("docker", "compose")


@pytest.fixture(scope="module")
def address():
    with registry() as found:
        yield found


def consul(reference):
    return Image("consul", reference, "DEVMESH_CONSUL_IMAGE", overridden=True)


@pytest.fixture
def whole(docker_engine, address):
    yield f"{address}/whole:1"
    docker_engine.images.remove(f"{address}/whole:1")


def test_a_missing_image_is_pulled(docker_engine, whole):
    said = []
    ensure(docker_engine, [consul(whole)], lambda *words: said.append(words))
    assert present(docker_engine, whole)
    assert (whole, "pulling") in said


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{address}/none:1", "is not on the engine and cannot be pulled"),
        ("127.0.0.1:9/none:1", "is not on the engine and cannot be pulled: .*connection refused"),
        ("{address}/private:1", "is not on the engine and cannot be pulled: .*unauthorized"),
        ("{address}/broken:1", "stopped half-way"),
        ("{address}/cut:1", "stopped half-way: .*unexpected EOF"),
    ],
)
def test_an_image_that_cannot_be_had_is_named_with_its_override(docker_engine, address, reference, message):
    wanted = consul(reference.format(address=address))
    with pytest.raises(DevmeshError, match=message) as raised:
        ensure(docker_engine, [wanted], lambda *_: None)
    assert f"{wanted.reference} (consul)" in raised.value.message
    assert "DEVMESH_CONSUL_IMAGE" in (raised.value.hint or "")
    assert "devmesh up --runtime local" in (raised.value.hint or "")
    assert not present(docker_engine, wanted.reference)


def test_an_up_whose_pull_fails_ends_with_what_to_do_and_leaves_nothing(docker_engine, docker_environment, address, tmp_path):
    def up(image: str, **variables: str) -> str:
        (tmp_path / "compose.yaml").write_text(f"name: cutoff\nservices: {{one: {{image: '{image}', expose: ['6379']}}}}\n")
        done = RunningMesh(tmp_path, runtime="docker", environment={**docker_environment, **variables}).devmesh("up", check=False)
        assert done.returncode == 1
        assert not (tmp_path / ".devmesh" / "state.json").exists()
        return done.stderr

    said = up("${REDIS_IMAGE}", DEVMESH_JAEGER_IMAGE=f"{address}/cut:1")
    assert f"the pull of {address}/cut:1 (jaeger) stopped half-way" in said
    assert "set DEVMESH_JAEGER_IMAGE to an image that you have, or run without images: devmesh up --runtime local" in said
    said = up(f"{address}/private:1")
    assert f"docker compose pull failed ({address}/private:1 of one):" in said
    assert "devmesh up --runtime local" in said
    label = {"label": "com.docker.compose.project=cutoff"}
    assert docker_engine.containers.list(all=True, filters=label) == docker_engine.networks.list(filters=label) == []


def failed_build(docker_environment, *lines):
    base = image("python", docker_environment)
    context = BuildContext({"Dockerfile": "\n".join(["ARG BASE", "FROM ${BASE}", *lines, ""]).encode()}, base.reference)
    with pytest.raises(DevmeshError) as raised:
        build(context, COMPOSE, lambda *_: None, base, docker_environment)
    return raised.value


def test_a_build_that_runs_out_of_space_says_what_gives_it_back(docker_engine, docker_environment):
    # a container's /dev/shm has 64 MB
    error = failed_build(docker_environment, "RUN dd if=/dev/zero of=/dev/shm/full bs=1M count=100")
    assert "no space left on the engine's disk to build devmesh:" in error.message
    assert "docker system prune" in (error.hint or "")


def test_a_build_that_fails_says_its_last_words(docker_engine, docker_environment):
    error = failed_build(docker_environment, "RUN echo the index is away >&2 && exit 3")
    assert "the index is away" in error.message
    assert "DEVMESH_PYTHON_IMAGE" in (error.hint or "")


def test_a_base_without_python_is_named(docker_engine, docker_environment, whole):
    with pytest.raises(DevmeshError, match="python3") as raised:
        ensure_devmesh(docker_engine, COMPOSE, lambda *_: None, docker_environment | {"DEVMESH_PYTHON_IMAGE": whole})
    assert f"(now {whole})" in (raised.value.hint or "")


def test_a_base_that_cannot_be_had_is_named_before_the_build(docker_engine, address):
    with pytest.raises(DevmeshError, match=r"/none:1 \(python\) is not on the engine") as raised:
        ensure_devmesh(docker_engine, COMPOSE, lambda *_: None, {"DEVMESH_PYTHON_IMAGE": f"{address}/none:1"})
    assert "DEVMESH_PYTHON_IMAGE" in (raised.value.hint or "")
