"""One Bookinfo mesh of real processes for the whole session, in a folder of its own."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from devmesh.mesh import Mesh
from tests.support.require import pods
from tests.support.warm import warm

ROOT = Path(__file__).parent.parent.parent
DEVMESH = str(Path(sys.executable).with_name("devmesh"))
TIMEOUT = 180  # seconds that a command may take
# Of commands that wait, unless a test says otherwise: what is tested here is not how busy the machine is.
PATIENCE = {"up": ("--wait-timeout", "2m"), "apply": ("--timeout", "1m"), "delete": ("--timeout", "1m")}


@dataclass
class RunningMesh:
    folder: Path
    gateway: str = ""
    interception: str = "auto"
    runtime: str = "local"
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    settings: tuple[str, ...] = ()  # further arguments of `up`

    def devmesh(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "DEVMESH_RUNTIME": self.runtime}
        option, limit = PATIENCE.get(arguments[0], ("", ""))
        if option and option not in arguments:
            arguments = (*arguments, option, limit)
        if arguments[0] in ("up", "down"):
            done = subprocess.run(
                [DEVMESH, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
            )
        else:
            done = warm().run(arguments, self.folder, environment, stdin, TIMEOUT)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return orjson.loads(self.devmesh(*arguments, "-o", "json").stdout)

    def up(self) -> None:
        how = ["--interception", self.interception] if self.runtime == "local" else []
        self.devmesh("up", *PATIENCE["up"], "--runtime", self.runtime, *how, *self.settings)
        state = orjson.loads((self.folder / ".devmesh" / "state.json").read_bytes())
        self.gateway = state["gateway_url"]

    def state(self) -> Any:
        return orjson.loads((self.folder / ".devmesh" / "state.json").read_bytes())

    def pid(self, process: str) -> int:
        if self.runtime == "docker":
            return int(self._docker("inspect", "--format", "{{.State.Pid}}", self.container(process)))
        return next(one["pid"] for one in self.state()["processes"] if one["name"] == process)

    def container(self, process: str) -> str:
        return f"{self.state()['project']}-{process}-1"

    def _docker(self, *arguments: str) -> str:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout

    @contextmanager
    def away(self, process: str) -> Iterator[None]:
        """The process is dead meanwhile, and comes back afterwards."""
        if self.runtime == "docker":
            self._docker("stop", "--time", "1", self.container(process))  # what is killed comes back
            yield
            self._docker("start", self.container(process))
            return
        pid = self.pid(process)
        with stopped(self.state()["supervisor"]["pid"]):  # or it would be back before we look
            os.kill(pid, signal.SIGKILL)
            yield
        until(lambda: self.pid(process) != pid)

    def fetch(self, url: str) -> str:
        return subprocess.run(["curl", "-s", "-m", "20", url], capture_output=True, text=True, check=True).stdout

    def page(self, session: str = "") -> str:
        arguments = ["curl", "-s", "-m", "10", f"{self.gateway}/productpage"]
        if session:
            arguments += ["-b", f"session={session}"]
        return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout

    def login(self, user: str) -> str:
        done = subprocess.run(
            ["curl", "-s", "-i", "-d", f"username={user}&passwd=x", f"{self.gateway}/login"], capture_output=True, text=True, check=True
        )
        found = re.search(r"session=([^;]+)", done.stdout)
        assert found, done.stdout
        return found[1]

    def served_by(self, session: str = "") -> str:
        found = re.search(r"served by <code>([^<]*)", self.page(session))
        return found[1] if found else ""

    def clean(self) -> None:
        """Back to what the files say; a command for each resource would take longer than most tests."""
        asyncio.run(_clean(Mesh(self.folder / "compose.yaml")))


async def _clean(mesh: Mesh) -> None:
    await mesh.clear_faults([])
    applied = [(one.owner, one.key) for one in await mesh.resources() if one.owner == "apply"]
    if applied:
        await mesh.delete(applied)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition, failing after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)  # between looks at another process


def copy_sample(name: str, target: Path) -> Path:
    shutil.copytree(ROOT / "sample-apps" / name, target, ignore=shutil.ignore_patterns(".devmesh", "__pycache__"))
    return target


def own_name(folder: Path) -> None:
    """Give a copied compose file a project name of this process: an engine knows projects by nothing else."""
    compose = folder / "compose.yaml"
    compose.write_text(re.sub(r"^name: (\S+)", rf"name: \1-{os.getpid()}", compose.read_text(), count=1, flags=re.MULTILINE))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def running(
    folder: Path,
    interception: str = "auto",
    runtime: str = "local",
    environment: Mapping[str, str] = os.environ,
    settings: tuple[str, ...] = (),
) -> Iterator[RunningMesh]:
    """The mesh of a folder, up for as long as it is needed; `settings` are those of `--set`."""
    mesh = RunningMesh(folder, interception=interception, runtime=runtime, environment=environment, settings=settings)
    mesh.up()
    try:
        yield mesh
    finally:
        mesh.devmesh("down", *(["--volumes"] if runtime == "docker" else []))  # an engine would keep them for ever


def virtual_service(host: str, rule: str) -> str:
    """A VirtualService of one HTTP rule, `rule` being what stands in it beside its route to `host`; the rule is on line 7."""
    return f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {host}}}
spec:
  hosts: [{host}]
  http:
  - {rule}
    route: [{{destination: {{host: {host}}}}}]
"""


@pytest.fixture(scope="session", params=["namespace", "proxy", "docker"])
def bookinfo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """The same assertions over all runtimes and interceptions; in pods the apps are unaware of any proxy."""
    os.environ.setdefault("NO_COLOR", "1")
    if request.param == "namespace":
        pods()
    folder = copy_sample("bookinfo", tmp_path_factory.mktemp("e2e") / "bookinfo")
    if request.param != "proxy":
        common = folder / "apps" / "common.py"
        common.write_text(common.read_text().replace("trust_env=True", "trust_env=False"))
    if request.param == "docker":
        own_name(folder)
        environment = {**request.getfixturevalue("docker_environment"), "SAMPLES_BASE": request.getfixturevalue("devmesh_image")}
        with running(folder, "auto", "docker", environment) as mesh:
            yield mesh
        return
    with running(folder, request.param) as mesh:
        yield mesh


@pytest.fixture
def clean_bookinfo(bookinfo: RunningMesh) -> Iterator[RunningMesh]:
    yield bookinfo
    bookinfo.clean()
