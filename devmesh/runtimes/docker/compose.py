"""Drives `docker compose` (v2, or the standalone binary of 2.20 or later) for what compose does: normalise, build, create, start, remove."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from devmesh.config.compose import Merged
from devmesh.config.compose_files import override_of, place_of
from devmesh.errors import DevmeshError

OLDEST = (2, 20)
LOCAL_HINT = "devmesh up --runtime local runs plain processes instead"
EXTENSION = "x-devmesh"
NO_SPACE = "no space left on device"
LATE_END = "did not receive an exit event"  # a busy engine's, within the ten seconds that it gives a killed container; it has ended since
SPACE_HINT = "docker system df shows what takes it, docker system prune gives it back"
# Settings for the user's own project, which would reach ours too.
OWN_VARIABLES = ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_REMOVE_ORPHANS")


@dataclass(frozen=True, slots=True)
class Project:
    """A rendered project as compose names it."""

    name: str
    file: Path


@dataclass(frozen=True, slots=True)
class Compose:
    command: tuple[str, ...]
    version: tuple[int, ...]

    @staticmethod
    def find(environ: Mapping[str, str] = os.environ) -> Compose:
        """Raises DevmeshError naming what is missing or too old. Found once it is not looked for again: choosing a runtime did it already."""
        return Compose._on(environ.get("PATH"))

    @staticmethod
    @functools.cache
    def _on(path: str | None) -> Compose:
        tried = []
        for command in (("docker", "compose"), ("docker-compose",)):
            binary = shutil.which(command[0], path=path)
            if binary is None:
                continue
            done = subprocess.run([binary, *command[1:], "version", "--short"], capture_output=True, text=True, check=False)
            found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout) if done.returncode == 0 else None
            if found is None:
                continue
            version = tuple(int(part) for part in found.groups(default="0"))
            if version >= OLDEST:
                return Compose((binary, *command[1:]), version)
            tried.append(f"{' '.join(command)} is {found[0]}")
        oldest = ".".join(map(str, OLDEST))
        said = f"; {', '.join(tried)}" if tried else ""
        raise DevmeshError(
            f"docker compose {oldest} or later is needed and not found{said}", f"install the compose plugin, or {LOCAL_HINT}"
        )

    def config(self, file: Path, profiles: Sequence[str] = ()) -> dict[str, Any]:
        """The user's file as compose understands it: interpolated, merged, paths absolute. Raises DevmeshError with compose's own words."""
        value: dict[str, Any] = json.loads(self._config(file, profiles, "json"))
        return value

    def whole(self, file: Path, profiles: Sequence[str] = (), config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`config` (asked for when it is not given) with the `x-devmesh` of all files, which compose writes as YAML only."""
        value = self.config(file, profiles) if config is None else config
        given = YAML(typ="safe").load(self._config(file, profiles, "yaml"))
        services = {name: service | _ours(given["services"][name]) for name, service in value["services"].items()}
        return {**value, **_ours(given), "services": services}

    def _config(self, file: Path, profiles: Sequence[str], form: str) -> str:
        chosen = [word for profile in profiles for word in ("--profile", profile)]
        done = subprocess.run(
            [*self.command, *files_of(file), *chosen, "config", "--format", form],
            capture_output=True, text=True, check=False, cwd=file.parent,
        )  # fmt: skip
        if done.returncode != 0:
            words = _plain(done.stderr).removeprefix(f"validating {file}: ")
            raise DevmeshError(
                f"{place_of(file, words, os.environ) or file}: {words}",
                f"docker compose {' '.join([*files_of(file), 'config'])} shows the same",
            )
        return done.stdout

    def follow(self, file: Path, arguments: Sequence[str], tell: Callable[[str], None], what: str = "") -> None:
        """Run to the end on the user's own file, telling each line. Raises DevmeshError with the last ones, and `what` it was done for."""
        last: deque[str] = deque(maxlen=12)
        command = [*self.command, "--progress", "plain", *files_of(file), *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=file.parent
        ) as process:
            for line in process.stdout or ():
                if line.strip():
                    last.append(line.rstrip())
                    tell(line.rstrip())
        if process.returncode != 0:
            same = f"docker compose {' '.join([*files_of(file), *arguments])} shows the same; or {LOCAL_HINT}"
            words = "\n".join(last)
            hint = SPACE_HINT if NO_SPACE in words.lower() else same
            raise DevmeshError(f"docker compose {arguments[0]} failed{what}:\n{words}", hint)

    def arguments(self, project: Project, *arguments: str) -> list[str]:
        """The command line; flags of compose itself may lead `arguments`."""
        return [*self.command, "--project-name", project.name, "--file", str(project.file), *arguments]

    def start(self, project: Project, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Run beside us; what it says goes to `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.arguments(project, "--progress", "plain", *arguments),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment(), start_new_session=True,
            )  # fmt: skip

    def run(self, project: Project, *arguments: str) -> str:
        """Run to the end. Raises DevmeshError with compose's own words."""
        done = subprocess.run(self.arguments(project, *arguments), capture_output=True, text=True, check=False, env=environment())
        if done.returncode != 0:
            raise DevmeshError(
                f"docker compose {arguments[0]} failed: {_plain(done.stderr)}", f"docker compose -f {project.file} {arguments[0]}"
            )
        return done.stdout

    def down(self, project: Project, *flags: str) -> None:
        """Remove it; what the engine would not remove yet at the second attempt. Raises DevmeshError."""
        arguments = ("down", "--remove-orphans", *flags)
        try:
            self.run(project, *arguments)
        except DevmeshError as error:
            if LATE_END not in error.message:
                raise
            self.run(project, *arguments)


def files_of(file: Path) -> list[str]:
    """The flags for the user's own file and its override: with one `-f`, compose would look for none."""
    return [word for one in (file, override_of(file)) if one is not None for word in ("-f", str(one))]


def merged(file: Path, profiles: Sequence[str] = ()) -> Merged:
    """The project as compose understands it, for `load_topology`; it needs compose, and no engine."""

    def ask() -> dict[str, Any]:
        try:
            compose = Compose.find()
        except DevmeshError as error:
            raise DevmeshError(
                f"{file} is made of several files (include, extends, an override), which compose reads: {error.message}",
                "install the compose plugin (no engine is needed for it), or write the services into one file",
            ) from error
        return compose.whole(file, profiles)

    return ask


def _ours(value: Mapping[str, Any]) -> dict[str, Any]:
    return {EXTENSION: value[EXTENSION]} if EXTENSION in value else {}


def environment() -> dict[str, str]:
    """Ours, without what was meant for the user's own project."""
    return {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}


def _plain(text: str) -> str:
    """What is wrong, without progress and warnings."""
    lines = [line for line in text.strip().splitlines() if "level=warning" not in line]
    return "\n".join(lines[-12:]) or "it says nothing"
