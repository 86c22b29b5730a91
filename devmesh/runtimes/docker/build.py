"""The devmesh image, built once for each version of the installed package: the same code, and the same versions of what it needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import docker

import devmesh
from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.compose import NO_SPACE, SPACE_HINT
from devmesh.runtimes.docker.images import Image, Tell, ensure, image, present
from devmesh.runtimes.docker.pip_settings import pip_settings
from devmesh.runtimes.packaged import compose_folder

COMPILED = (".pyc", ".so", ".pyd")
STEP = re.compile(r"#\d+ \[\S+ (\S+ +\d+/\d+)\] ")  # BuildKit's plain progress: #5 [service stage 2/3] RUN ...
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
# Of what a build said last, for the error: BuildKit repeats whole commands.
KEPT_LINES, KEPT_WIDTH = 12, 200


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What goes into the image: path in the context -> content."""

    files: Mapping[str, bytes]
    base: str

    @property
    def content(self) -> str:
        """A hash of all that decides what the image is."""
        digest = hashlib.sha256(self.base.encode())
        for name, body in sorted(self.files.items()):
            digest.update(f"\0{name}\0{len(body)}\0".encode() + body)
        return digest.hexdigest()

    @property
    def reference(self) -> str:
        return f"devmesh:{devmesh.__version__}-{self.content[:12]}"

    def write(self, folder: Path) -> None:
        for name, body in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)


def ensure_devmesh(client: docker.DockerClient, compose: Sequence[str], tell: Tell, environment: Mapping[str, str] = os.environ) -> str:
    """The reference of a devmesh image that the engine has. `compose` is the command (`docker compose`); raises DevmeshError."""
    own = image("devmesh", environment)
    if own.overridden:
        ensure(client, [own], tell)
        return own.reference
    base = image("python", environment)
    context = build_context(base.reference)
    if not present(client, context.reference):
        ensure(client, [base], tell)
        build(context, compose, tell, base, environment)
    return context.reference


def build_context(base: str) -> BuildContext:
    """The installed package, its Dockerfile, and the versions of what it needs that are installed beside it."""
    package = Path(devmesh.__file__).parent
    needed = [line for line in metadata.requires("devmesh") or () if "extra ==" not in line]
    files = {
        "Dockerfile": (compose_folder() / "Dockerfile").read_bytes(),
        "requirements.txt": _lines(sorted(needed)),
        "constraints.txt": _lines(f"{name}=={version}" for name, version in sorted(_versions("devmesh").items()) if name != "devmesh"),
    }
    for path in _code(package):
        files[f"devmesh/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    return BuildContext(files, base)


def build(context: BuildContext, compose: Sequence[str], tell: Tell, base: Image, environment: Mapping[str, str] = os.environ) -> None:
    """Compose builds, because the SDK has no BuildKit and so no build secrets. Raises DevmeshError with the build's last words."""
    with tempfile.TemporaryDirectory(prefix="devmesh-build-") as name:
        folder = Path(name)
        context.write(folder / "context")
        settings = pip_settings(environment)
        for secret, text in (("pip.conf", settings.configuration), ("ca.pem", settings.certificates)):
            (folder / secret).write_text(text)
        (folder / "compose.yaml").write_text(json.dumps(_project(context, folder, environment)))
        command = [*compose, "--progress", "plain", "--project-name", "devmesh-build", "--file", str(folder / "compose.yaml"), "build"]
        last: deque[str] = deque(maxlen=KEPT_LINES)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_own(environment)
        ) as process:  # fmt: skip
            for line in process.stdout or ():
                last.append(line.rstrip()[:KEPT_WIDTH])
                step = STEP.match(line)
                if step:
                    tell(context.reference, f"building, {step[1]}")
    if process.returncode != 0:
        raise build_error(context.reference, base, "\n".join(last))


def build_error(reference: str, base: Image, words: str) -> DevmeshError:
    if NO_SPACE in words.lower():
        return DevmeshError(f"no space left on the engine's disk to build {reference}", SPACE_HINT)
    hint = (
        "the build needs Debian's and Python's packages; set DEVMESH_IMAGE to a devmesh image built elsewhere, "
        f"{base.variable} to another base (now {base.reference}), or run without images: devmesh up --runtime local"
    )
    return DevmeshError(f"the build of {reference} failed:\n{words}", hint)


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the settings of the user's own project; the old builder knows no secrets."""
    return {name: value for name, value in environment.items() if not name.startswith("COMPOSE_")} | {"DOCKER_BUILDKIT": "1"}


def _project(context: BuildContext, folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    secrets = {name: {"file": str(folder / name)} for name in ("pip.conf", "ca.pem")}
    built = {
        "context": str(folder / "context"),
        # Docker's predefined arguments: used by the build's commands, kept in no layer.
        "args": {"BASE": context.base} | {name: environment[name] for name in PROXIES if environment.get(name)},
        "labels": {"dev.devmesh.version": devmesh.__version__, "dev.devmesh.content": context.content},
        "secrets": list(secrets),
    }
    return {"services": {"devmesh": {"image": context.reference, "build": built}}, "secrets": secrets}


def _code(package: Path) -> Iterator[Path]:
    """The package's own files; what was compiled for this machine's Python stays here."""
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix not in COMPILED and "__pycache__" not in path.parts:
            yield path


def _versions(distribution: str, seen: dict[str, str] | None = None) -> dict[str, str]:
    """Name -> installed version of all that a distribution needs, itself included; what is not installed here is left to pip."""
    found = {} if seen is None else seen
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    try:
        installed = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return found
    if name not in found:
        found[name] = installed.version
        for line in installed.requires or ():
            required = re.match(r"[A-Za-z0-9._-]+", line)
            if required and "extra ==" not in line:
                _versions(required[0], found)
    return found


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
