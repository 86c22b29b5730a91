"""The devmesh image on a real engine, as the rendered project runs it: no root, a read-only root file system, no capability but the init's one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import orjson
import pytest
from docker.models.containers import Container

from tests.e2e.conftest import until
from tests.sidecar.bootstraps import bootstrap
from tests.sidecar.life import snapshot_file

pytestmark = pytest.mark.e2e
MEGABYTE = 1_000_000
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
READY = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:15021/healthz/ready').status)"


@contextlib.contextmanager
def running(client: docker.DockerClient, image: str, command: list[str], **settings: object) -> Iterator[Container]:
    container = client.containers.run(image, command, detach=True, **settings)
    try:
        yield container
    finally:
        container.remove(force=True)


def said(client: docker.DockerClient, image: str, command: list[str], **settings: object) -> str:
    return client.containers.run(image, command, remove=True, **(HARDENED | settings)).decode()


def test_it_adds_less_than_150_mb_to_its_base(docker_engine, docker_environment, devmesh_image):
    base, image = (docker_engine.images.get(name).attrs["Size"] for name in (docker_environment["DEVMESH_PYTHON_IMAGE"], devmesh_image))
    assert 0 < image - base < 150 * MEGABYTE


def test_it_runs_as_the_meshs_own_user_and_says_its_version(docker_engine, devmesh_image):
    assert said(docker_engine, devmesh_image, ["id", "-u"]) == "1337\n"
    assert devmesh_image.startswith(f"devmesh:{said(docker_engine, devmesh_image, None).split()[1]}-")


@pytest.mark.parametrize(
    "module", ["ca.server", "collector.server", "controlplane.server", "registry.consul", "sidecar.__main__", "launch"]
)
def test_every_part_starts_from_it(docker_engine, devmesh_image, module):
    assert (
        said(docker_engine, devmesh_image, ["python", "-W", "error", "-c", f"import devmesh.{module}; print('imported')"]) == "imported\n"
    )


def test_a_sidecar_starts_on_a_read_only_root(docker_engine, devmesh_image, tmp_path: Path):
    listening = [{"role": role, "address": "127.0.0.1", "port": port} for role, port in (("admin", 15000), ("health", 15021))]
    (tmp_path / "bootstrap.json").write_bytes(orjson.dumps(bootstrap(xds=None, ca=None, snapshot="/mesh/snapshot.json", sockets=listening)))
    Path(snapshot_file(tmp_path)).rename(tmp_path / "snapshot.json")
    volumes = {str(tmp_path): {"bind": "/mesh", "mode": "ro"}}
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o755)
    command = ["python", "-m", "devmesh.sidecar", "/mesh/bootstrap.json"]
    with running(docker_engine, devmesh_image, command, volumes=volumes, **HARDENED) as container:

        def ready() -> bool:
            container.reload()
            assert container.status in ("created", "running"), container.logs().decode()
            return container.exec_run(["python", "-c", READY]).output == b"200\n"

        until(ready)
        container.stop(timeout=20)
        assert container.wait()["StatusCode"] == 0


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_a_pods_init_can_redirect_with_net_admin_alone(docker_engine, devmesh_image, program):
    redirect = f"{program} -t nat -A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 15001 && {program} -t nat -S OUTPUT"
    rules = said(docker_engine, devmesh_image, ["sh", "-c", redirect], user="0", cap_add=["NET_ADMIN"])
    assert "-A OUTPUT -p tcp -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 15001" in rules


def test_nothing_of_how_it_was_built_stays_in_it(docker_engine, devmesh_image):
    left = [
        "sh",
        "-c",
        "find / -xdev \\( -name pip.conf -o -path '/run/secrets/*' -o -path '/build' -o -path '/root/.cache/*' \\) 2>/dev/null || true",
    ]
    assert said(docker_engine, devmesh_image, left, user="0", cap_add=["DAC_OVERRIDE"]) == ""
    layers = " ".join(layer["CreatedBy"] for layer in docker_engine.images.get(devmesh_image).history())
    assert "secret" not in layers
    assert "://" not in layers
