"""The local runtime as `devmesh.mesh` sees it: a supervisor, asked over its control socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

from devmesh.errors import DevmeshError
from devmesh.runtimes.fetch import fetch
from devmesh.runtimes.files import MeshFiles, last_lines
from devmesh.runtimes.local import ahead
from devmesh.runtimes.local.enter import enter
from devmesh.runtimes.local.leftovers import GRACE, clean_up, let_go
from devmesh.runtimes.local.ports import OUTBOUND_PORT
from devmesh.runtimes.local.preload import Preloading
from devmesh.runtimes.processes import await_ends
from devmesh.runtimes.runtime import Json, LogQuery, Tell

DOWN_SECONDS = 30.0  # that a supervisor may take to stop everything but the apps, and then itself
MAX_ANSWER = 1 << 24  # one line, of a mesh of many workloads
UNNAMED = (".access.log", "-pod.log")  # shown with their workload's, or seldom wanted
RESTART_SECONDS = 300  # who is started or restarted with another waits until that one is as it needs it


class LocalRuntime:
    name = "local"

    def __init__(self, compose_file: Path, files: MeshFiles) -> None:
        self.compose_file, self.files = compose_file, files

    def is_up(self) -> bool:
        return self.files.keeper_lives()

    def up(self, settings: Json, tell: Tell) -> None:
        """Start the supervisor and follow it until the mesh is ready. Raises DevmeshError with what went wrong."""
        self.files.make()
        with closing(ahead.take()) as launchers:
            self._follow(launchers, settings, tell)

    def _follow(self, launchers: Preloading, settings: Json, tell: Tell) -> None:
        with launchers.supervise(self.compose_file, settings, self.files.log("supervisor"), self.files.log("launcher")) as told:
            try:
                if _is_done(told, tell):
                    return
            except KeyboardInterrupt:
                tell({"event": "note", "message": "interrupted: the mesh goes on coming up. hint: devmesh wait, or devmesh down"})
                raise
        lines = "\n".join([*launchers.last_words(), *last_lines(self.files.log("supervisor"))])
        raise DevmeshError(f"the supervisor ended before the mesh was ready:\n{lines}", f"see {self.files.log('supervisor')}")

    async def down(self, *, volumes: bool) -> bool:
        del volumes  # see `forget`
        state = self.files.read_state() or {}
        if self.is_up():
            apps = sum(not one["gateway"] for one in state.get("workloads", {}).values())
            # One may have to be stopped after the other.
            await self.command({"command": "down"}, within=DOWN_SECONDS + GRACE * apps)
            keeper = state["supervisor"]  # has the folder's lock until its end: an `up` that follows would be refused
            await asyncio.to_thread(await_ends, [(keeper["pid"], keeper["started"])], time.monotonic() + DOWN_SECONDS)
            return True
        found = await asyncio.to_thread(clean_up, self.files)
        if state.get("primary"):
            from devmesh.runtimes.local.primary import LocalPrimary  # noqa: PLC0415 - for the one mesh that joined another
            from devmesh.runtimes.primary import leave_primary  # noqa: PLC0415 - as above

            await leave_primary(LocalPrimary, state, self.files)
        return found

    def forget(self, kept: Json) -> None:
        """Nothing is: all of it lies in .devmesh, which is the caller's."""

    async def command(self, command: Json, within: float = 15) -> Json:
        """Ask the supervisor."""
        try:
            with self.files.control_address() as address:
                reader, writer = await asyncio.open_unix_connection(address, limit=MAX_ANSWER)
        except OSError as error:
            raise self.files.not_up() from error
        try:
            writer.write(json.dumps(command).encode() + b"\n")
            async with asyncio.timeout(within):
                answer: Json = json.loads(await reader.readline() or b"{}")
        except TimeoutError as error:
            raise DevmeshError(f"the supervisor has not answered within {within:g} s", f"see {self.files.log('supervisor')}") from error
        finally:
            writer.close()
        if "error" in answer:
            raise DevmeshError(answer["error"], answer.get("hint") or "devmesh status lists what there is")
        return answer

    async def state(self) -> Json:
        """What the supervisor says, or last wrote: also true while it is dead and its children serve."""
        if self.is_up():
            return await self.command({"command": "status"})
        return self.files.running_state()

    async def act(self, action: str, target: str, *, alone: bool = False) -> list[str]:
        within = 15 if action == "stop" else RESTART_SECONDS
        workloads: list[str] = (await self.command({"command": action, "target": target, "alone": alone}, within))["workloads"]
        return workloads

    async def kill(self, target: str) -> list[str]:
        return await self.act("kill", target)

    async def hold(self) -> list[str]:
        """A supervisor that is gone holds nobody: what it held is let go."""
        if self.is_up():
            return list((await self.command({"command": "hold"}))["held"])
        await asyncio.to_thread(let_go, self.files.running_state())
        return []

    async def ask_sidecar(self, workload: str, face: str, path: str) -> str:
        url = f"http://127.0.0.1:{self.files.running_state()['workloads'][workload][face]}{path}"
        return (await fetch(url, self.files.mesh_token(), 3))[1]

    def logs(self, query: LogQuery) -> Iterator[tuple[str, str]]:
        files = self._log_files(query)
        if not files:
            known = ", ".join(
                sorted(path.name.removesuffix(".log") for path in self.files.logs.glob("*.log") if not path.name.endswith(UNNAMED))
            )
            raise DevmeshError(f"no logs of {query.service!r}", f"there are: {known}" if known else "devmesh up")
        if query.follow:
            yield from _followed(files, query.tail)
        for path in files:
            yield from ((path.name.removesuffix(".log"), line) for line in last_lines(path, query.tail))

    def _log_files(self, query: LogQuery) -> list[Path]:
        found = sorted(self.files.logs.glob("*.access.log" if query.access else "*.log"))
        if not query.access:
            found = [path for path in found if not path.name.endswith(".access.log")]
        if query.service is None:
            return found
        workloads = [
            name
            for name, one in (self.files.read_state() or {"workloads": {}})["workloads"].items()
            if query.service in (name, one["service"])
        ]
        names = {query.service, *workloads, *(f"{name}-sidecar" for name in workloads)}
        return [path for path in found if path.name.removesuffix(".log").removesuffix(".access") in names]

    def curl(self, workload: str, arguments: Sequence[str]) -> NoReturn:
        binary = shutil.which("curl")
        if binary is None:
            raise DevmeshError("curl is not installed", "apt-get install curl")
        one = self.files.running_state()["workloads"][workload]
        if one.get("init_pid"):
            enter(workload, one, [binary, "-sS", "--noproxy", "*", *arguments])
        proxy = f"http://{one['ip']}:{OUTBOUND_PORT}"
        # The proxy port is the workload's identity; nothing may bypass it.
        os.execv(binary, ["curl", "-sS", "--noproxy", "", "--proxy", proxy, *arguments])  # noqa: S606 - no shell on purpose

    def execute(self, workload: str, argv: Sequence[str] | None) -> NoReturn:
        state = self.files.running_state()["workloads"][workload]
        enter(workload, state, argv or [os.environ.get("SHELL") or "/bin/sh"], self.files.environment(workload))


def _is_done(events: Iterable[str], tell: Tell) -> bool:
    """Pass on what the supervisor says until the mesh is ready; False when it has ended before. Raises DevmeshError with what it could not do."""
    for line in events:
        event = json.loads(line)
        tell(event)
        if event["event"] == "error":
            if not event.get("runs"):
                deque(events, 0)  # until it has stopped what it had started: another `up` may follow at once
            raise DevmeshError(event["message"], event["hint"])
        if event["event"] == "done":
            return True
    return False


def _followed(files: Sequence[Path], tail: int) -> Iterator[tuple[str, str]]:
    """For ever, from where the last lines ended: what is written while they are taken is not missed."""
    with ExitStack() as opened:
        handles = {path.name.removesuffix(".log"): opened.enter_context(path.open(errors="replace")) for path in files}
        for name, handle in handles.items():
            yield from ((name, line) for line in handle.read().splitlines()[-tail:])
        while True:
            idle = True
            for name, handle in handles.items():
                for line in handle:
                    idle = False
                    yield name, line.rstrip()
            if idle:
                time.sleep(0.1)  # between looks at files, as tail -f does
