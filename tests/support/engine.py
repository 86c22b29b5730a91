"""The Docker engine for tests, and the images that stand in for a registry's where `.ci/docker.sh` made them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from tests.support.require import missing


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """A client of the engine that answers; skips or fails the calling test when there is none."""
    client = None
    try:
        client = docker.from_env()
        client.ping()
    except (DockerException, requests.RequestException):
        if client is not None:
            client.close()
        missing("docker", "no Docker engine answers (.ci/docker.sh starts one)")
    try:
        yield client
    finally:
        client.close()


def image_environment() -> dict[str, str]:
    """This process's environment, with the images of `.ci/docker.sh` where it names none itself."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    written = Path(os.environ.get("DEVMESH_DOCKER_ROOT") or cache / "devmesh-docker") / "images.env"
    made = dict(re.findall(r"^export (\w+)=(.*)$", written.read_text(), re.MULTILINE)) if written.is_file() else {}
    return made | os.environ
