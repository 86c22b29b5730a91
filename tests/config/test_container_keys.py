"""What only a container can have is named for whom it is written, and what a process has is not."""

import pytest

from devmesh.config.container_keys import container_keys, told
from devmesh.config.topology import load_topology


@pytest.mark.parametrize(
    ("service", "keys"),
    [
        ({"image": "x", "command": ["a"], "environment": {}, "x-devmesh": {}, "restart": "no", "deploy": {"replicas": 2}}, []),
        ({"tty": True, "stdin_open": False, "volumes": ["a:/a"], "user": "1000"}, ["tty", "volumes", "user"]),
        ({"working_dir": "/srv"}, ["working_dir"]),
        ({"working_dir": "src"}, []),
        ({"volumes": [], "depends_on": ["a"], "healthcheck": {"test": "x"}}, []),
    ],
)
def test_keys_of_containers(service, keys):
    assert list(container_keys(service)) == keys


def test_they_are_told_by_key_with_the_services_that_have_them(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  b: {image: x, tty: true, deploy: {replicas: 2}, x-devmesh: {local: {command: [b]}}}\n"
        "  a: {image: x, tty: true, x-devmesh: {local: {command: [a]}}}\n"
    )
    assert told(load_topology(tmp_path / "compose.yaml").workloads) == "tty (b, a)"
