"""What a runtime is: the way a mesh's processes are started, looked at and stopped. `devmesh.mesh` knows nothing else of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

Json = dict[str, Any]
Tell = Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """`service` None: everything. `access`: the sidecars' access logs only. `since`: seconds back, None for all."""

    service: str | None = None
    access: bool = False
    follow: bool = False
    tail: int = 100
    since: float | None = None


class Runtime(Protocol):
    """One mesh on one runtime. `state.json` is theirs; its shape is the supervisor's, `runtime` says whose."""

    @property
    def name(self) -> str: ...

    def is_up(self) -> bool:
        """Whether the process that keeps the mesh lives."""
        ...

    def up(self, settings: Json, tell: Tell) -> None:
        """Return when every workload is ready; raises DevmeshError."""
        ...

    async def down(self, *, volumes: bool) -> bool:
        """Stop everything; with `volumes` forget what was kept. False when nothing ran."""
        ...

    def forget(self, kept: Json) -> None:
        """Remove what `kept.json` says that earlier meshes of this folder have left outside of it. Raises DevmeshError."""
        ...

    async def state(self) -> Json:
        """The state with each process as it is now."""
        ...

    async def act(self, action: str, target: str, *, alone: bool = False) -> list[str]:
        """restart, stop or start the apps of a service or workload, `alone` without whom they depend on; the workloads it did it to."""
        ...

    async def kill(self, target: str) -> list[str]:
        """SIGKILL to the running apps of a service or workload, each dead when it returns; what starts them again is what always does.

        The workloads whose app it was. Raises DevmeshError when none runs.
        """
        ...

    async def hold(self) -> list[str]:
        """Make those apps stand still that faults in the registry say, and no others; the workloads whose app does. Raises DevmeshError."""
        ...

    async def ask_sidecar(self, workload: str, face: str, path: str) -> str:
        """GET from a sidecar's `admin` or `prometheus` port. Raises DevmeshError."""
        ...

    def logs(self, query: LogQuery) -> Iterator[tuple[str, str]]:
        """(who, line); endless with `follow`. Raises DevmeshError when nothing has that name."""
        ...

    def curl(self, workload: str, arguments: Sequence[str]) -> NoReturn:
        """Become curl, as that workload would send it."""
        ...

    def execute(self, workload: str, argv: Sequence[str] | None) -> NoReturn:
        """Become a command, or a shell, where the workload's app runs. Raises DevmeshError where the runtime has no such place."""
        ...
