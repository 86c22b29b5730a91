"""`.devmesh/`: where a mesh keeps what is its own. 0700, secrets 0600 from their first byte."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from devmesh.ca.files import write_private
from devmesh.errors import DevmeshError
from devmesh.runtimes.processes import is_same


@dataclass(frozen=True, slots=True)
class MeshFiles:
    root: Path

    @staticmethod
    def of(compose_file: Path) -> MeshFiles:
        return MeshFiles(compose_file.resolve().parent / ".devmesh")

    def make(self) -> None:
        """Raises DevmeshError where that is not ours to make."""
        try:
            for path in (self.root, self.logs, self.root / "workloads", self.root / "registry", self.root / "ca"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_ours(error) from error

    def _not_ours(self, error: OSError) -> DevmeshError:
        """Another user's folder, or another user's mesh: whoever called `up` with sudo once has made it root's."""
        return DevmeshError(
            f"{self.root} cannot be used: {error.strerror}", f"be the user who owns it (ls -ld {self.root.parent} {self.root} says who)"
        )

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def control_socket(self) -> Path:
        return self.root / "control.sock"

    @contextlib.contextmanager
    def control_address(self) -> Iterator[str]:
        """`control_socket` by a name short enough to bind and connect to (unix(7): 108 bytes), however long its folder's is.

        Raises OSError.
        """
        folder = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{self.control_socket.name}"
        finally:
            os.close(folder)

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def open_log(self, process: str) -> int:
        """A file descriptor that appends to it, for a child to inherit."""
        return os.open(self.log(process), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def access_log(self, workload: str) -> Path:
        return self.logs / f"{workload}.access.log"

    def workload(self, name: str) -> Path:
        path = self.root / "workloads" / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def environment(self, workload: str) -> Path:
        """What an app in a pod has in its environment beside the user's own, for commands that enter the pod."""
        return self.workload(workload) / "environment.json"

    def pod(self, name: str) -> Path:
        """What a pod sees of ours; nothing secret, and open to every user inside, whom only the pod's mounts lead here."""
        path = self.root / "pods" / name
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return path

    def mesh_token(self) -> str:
        """The token, made when there is none."""
        if not self.token.exists():
            write_private(self.token, secrets.token_hex(32).encode())
        return self.token.read_text().strip()

    def read_state(self) -> dict[str, Any] | None:
        """None where there is none. Raises DevmeshError for another user's."""
        try:
            state: dict[str, Any] = json.loads(self.state.read_text())
        except PermissionError as error:
            raise self._not_ours(error) from error
        except (OSError, ValueError):
            return None
        return state

    @property
    def kept(self) -> Path:
        """Where a mesh that is down has something outside of this folder: its `runtime`, and what that needs to find it."""
        return self.root / "kept.json"

    def read_kept(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads(self.kept.read_text())
        except (OSError, ValueError):
            return None
        return kept

    def keeper_lives(self) -> bool:
        """Whether the process that keeps the mesh does: `supervisor` in the state, pid and start time."""
        one = (self.read_state() or {}).get("supervisor")
        return one is not None and is_same(one["pid"], one["started"])

    def running_state(self) -> dict[str, Any]:
        """What the runtime last wrote; also true while its keeper is dead and the rest serves. Raises DevmeshError when nothing is up."""
        state = self.read_state()
        if state is None:
            raise self.not_up()
        return state

    def not_up(self) -> DevmeshError:
        return DevmeshError(f"no mesh is up in {self.root.parent}", "devmesh up")

    def write_state(self, state: dict[str, Any]) -> None:
        write_private(self.state, json.dumps(state, indent=1).encode(), durable=False)

    def lock(self) -> IO[str]:
        """Held by the supervisor as long as it lives. Raises DevmeshError when somebody has it."""
        file = (self.root / "lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise DevmeshError(f"the mesh in {self.root.parent} is already up", "devmesh status, or devmesh down first") from error
        return file


def last_lines(path: Path, count: int = 20) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []
