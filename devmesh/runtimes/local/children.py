"""The processes of one mesh: forked through the launchers or spawned, known by name, started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from devmesh.errors import DevmeshError
from devmesh.open_files import as_found
from devmesh.runtimes.files import MeshFiles, last_lines
from devmesh.runtimes.local.launchers import Launchers
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.restarts import comes_back
from devmesh.runtimes.processes import start_time

UP_TIMEOUT = 30.0  # seconds until `up` gives up on readiness, unless it is told when
FORK_SECONDS = 2.0  # in which a launcher answers, if it lives
FOREIGN = ("consul", "addon")  # somebody else's servers, which tell us nothing
Again = Callable[[Managed], Awaitable[None]]


class Children:
    """`again` starts an app or a pod anew, which takes more than its process; `changed` is called after whatever state.json tells of them.

    `limit` is how many seconds `up` waits for readiness, and whether it was `told` so.
    """

    def __init__(
        self,
        files: MeshFiles,
        launchers: Launchers,
        again: Again,
        changed: Callable[[], None],
        limit: float = UP_TIMEOUT,
        *,
        told: bool = False,
    ) -> None:
        self.processes: dict[str, Managed] = {}
        self.stopping = asyncio.Event()
        self._files, self._launchers, self._again, self._changed = files, launchers, again, changed
        self._began, self.limit, self.told = time.monotonic(), limit, told
        self._tasks: set[asyncio.Task[Any]] = set()

    def left(self) -> float:
        """Of the seconds that `up` waits."""
        return self._began + self.limit - time.monotonic()

    @property
    def is_late(self) -> bool:
        """Whether `up` waits for nothing any longer."""
        return time.monotonic() > self._began + self.limit

    def of_kind(self, *kinds: str) -> list[Managed]:
        return [process for process in self.processes.values() if process.kind in kinds]

    def task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- forked ----------------------------------------------------------------------------------------------------

    def fork(self, name: str, entry: str, arguments: dict[str, Any], sockets: list[socket.socket], kind: str = "ours") -> None:
        process = self.processes.setdefault(name, Managed(name, kind))
        process.request = {"name": name, "entry": entry, "arguments": arguments, "log": str(self._files.log(name))}
        process.sockets = sockets
        self._send(process)

    def _send(self, process: Managed) -> None:
        process.begin(time.monotonic())
        process.asked = True
        self._launchers.fork(process.request, process.sockets, pod=process.kind == "pod")

    def on_launcher(self, event: dict[str, Any]) -> None:
        """What a launcher says of one that it has forked."""
        process = self.processes.get(event["name"])
        if process is None:  # one we gave up
            return
        if event["event"] == "started":
            process.known(event["pid"], start_time(event["pid"]) or 0)
            self._changed()
        elif event["event"] == "ready":
            process.ready = True
        elif event["pid"] == process.pid or not process.pid:
            self.exited(process, event["status"])
        process.changed.set()

    async def all_known(self) -> None:
        """Until the number of whatever was asked for last has been said: nothing else tells whom to stop. One that does not come ends it."""
        with contextlib.suppress(TimeoutError):
            for process in tuple(self.processes.values()):
                async with asyncio.timeout(FORK_SECONDS):  # each: a launcher forks one after the other
                    while process.asked:
                        await process.change()

    # -- spawned ---------------------------------------------------------------------------------------------------

    async def spawn_foreign(self, name: str, kind: str, request: dict[str, Any]) -> None:
        process = self.processes[name] = Managed(name, kind, request=request)
        await self.spawn(process)

    async def spawn(self, process: Managed) -> None:
        """Start what `process.request` says; one that cannot be started has ended with 127, as a shell says it."""
        process.begin(time.monotonic())
        process.asked = True
        argv, directory = process.request["argv"], Path(process.request.get("cwd", self._files.root))
        fd = self._files.open_log(process.name)
        try:
            child = await asyncio.create_subprocess_exec(
                *argv, env=process.request["environment"], cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=fd, stderr=fd,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.write(fd, f"cannot start {argv[0]}: {error}\n".encode())
            self.exited(process, 127)
            return
        finally:
            os.close(fd)
            process.asked = False  # of whoever gives up waiting, too: asyncio ends that child
        as_found(child.pid)
        process.known(child.pid, start_time(child.pid) or 0)
        process.changed.set()
        process.ready = process.kind in FOREIGN or not process.listens
        self.task(self._wait(process, child), f"wait for {process.name}")
        if process.kind == "app":
            self._changed()  # who comes after a kill has to find it

    async def _wait(self, process: Managed, child: asyncio.subprocess.Process) -> None:
        self.exited(process, await child.wait())

    # -- ended -----------------------------------------------------------------------------------------------------

    async def ended(self, process: Managed) -> None:
        """Until we have been told that it has: told after the next one runs, that one would be taken for it and started once more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORK_SECONDS):
                while process.status is None:
                    process.changed.clear()
                    await process.changed.wait()

    def exited(self, process: Managed, status: int) -> None:
        process.ended(status)
        if not process.wanted or self.stopping.is_set():
            return
        if process.kind == "app" and not comes_back(process.restart, status, process.restarts, listens=process.listens):
            process.over = True
            self._changed()
            return
        if self._comes_with_its_pod(process):
            return
        self.task(self._restart(process, process.next_wait(time.monotonic())), f"restart {process.name}")

    def _comes_with_its_pod(self, process: Managed) -> bool:
        pod = self.processes.get(f"{process.name}-pod")
        return process.kind == "app" and pod is not None and pod.status is not None

    async def _restart(self, process: Managed, wait: float) -> None:
        await asyncio.sleep(wait)
        if not process.wanted or self.stopping.is_set() or process.status is None:  # somebody has started it meanwhile
            return
        process.restarts += 1
        if process.kind in ("app", "pod"):
            await self._again(process)
        elif process.kind in FOREIGN:
            await self.spawn(process)
            self._changed()
        else:
            self._send(process)

    # -- readiness -------------------------------------------------------------------------------------------------

    async def ready(self, name: str) -> None:
        """Wait for it. Raises DevmeshError with its last lines when it dies again and again, or time is up."""
        process = self.processes[name]
        while not process.ready:
            process.changed.clear()
            if process.restarts > 1 or self.is_late or self._launchers.is_lost:
                raise DevmeshError(f"{name} does not become ready; its last lines:\n{self.last_lines(name)}", f"devmesh logs {name}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.changed.wait(), 0.5)

    async def all_ready(self, kind: str) -> None:
        await asyncio.gather(*(self.ready(process.name) for process in self.of_kind(kind)))

    def last_lines(self, name: str) -> str:
        return "\n".join(last_lines(self._files.log(name)))
