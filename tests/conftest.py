"""Says what one worker keeps together; counts skips by reason at the end, so that a machine without a counterpart says what it did not check; the Docker engine for those that ask."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from hypothesis import HealthCheck, settings

from devmesh.runtimes.docker.build import ensure_devmesh
from tests.support.engine import engine, image_environment

# Neither how busy the machine is nor what chance brings up decides whether a change lands. To look further than it does:
# pytest --hypothesis-profile default --hypothesis-seed random
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


def kept_together(nodeid: str) -> str:
    """What goes to one worker with `--dist loadfile`: a file's tests, but of all e2e files together those on one kind of Bookinfo mesh."""
    file, _, test = nodeid.partition("::")
    mesh = re.search(r"[\[-](namespace|proxy|docker)[]-]", test) if file.startswith("tests/e2e/") else None
    return mesh[1] if mesh else file


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only where it is used

    class Meshes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return kept_together(nodeid)

    return Meshes(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()) if isinstance(report.longrepr, tuple))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"not checked here: {count} x {reason}")


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerClient]:
    """The machine's engine; skips without one, fails under DEVMESH_REQUIRE=docker."""
    with engine() as client:
        yield client


@pytest.fixture(scope="session")
def docker_environment(docker_engine: docker.DockerClient) -> dict[str, str]:
    """What a command that uses the engine is given, the names of images that need no registry included."""
    return image_environment()


@pytest.fixture(scope="session")
def devmesh_image(docker_engine: docker.DockerClient, docker_environment: dict[str, str]) -> str:
    """The devmesh image of this source tree."""
    return ensure_devmesh(docker_engine, ("docker", "compose"), lambda *_: None, docker_environment)
