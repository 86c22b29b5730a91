"""Runs the apps' healthchecks when they are due: in the app's pod, or beside it as a plain process (devmesh/pods/check.py)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from devmesh.open_files import as_found
from devmesh.pods.check import MAX_RUN, TIMED_OUT, Outcome, Run
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.health import Health
from devmesh.runtimes.local.managed import Managed
from devmesh.runtimes.local.pods import Pods

LATE_SECONDS = 5.0  # after its timeout, in which a run that was killed is told; whoever should tell it may be dead
GRACE = 2.0
LOG = "healthchecks"


class Checks:
    """`changed` is called after an app's health is another."""

    def __init__(self, files: MeshFiles, pods: Pods, changed: Callable[[], None]) -> None:
        self._files, self._pods, self._changed = files, pods, changed
        self._runs: dict[int, asyncio.Future[Outcome]] = {}
        self._numbers = itertools.count(1)
        self._beside = Beside(files, self.on_checked)
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, process: Managed) -> None:
        """From its start, which was just now, to its end."""
        if process.health is None or process.status is not None:
            return
        process.watcher = asyncio.create_task(self._watch(process, process.health), name=f"healthcheck of {process.name}")
        self._tasks.add(process.watcher)
        process.watcher.add_done_callback(self._tasks.discard)

    async def _watch(self, process: Managed, health: Health) -> None:
        due = time.monotonic() + health.next_wait(0.0)
        if await self._listens_before(process, due):
            await self._first(process, health)
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._run(process, health)
            due = time.monotonic() + health.next_wait(time.monotonic() - process.born)

    async def _listens_before(self, process: Managed, due: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due - time.monotonic()):
                while not process.ready:
                    await process.change()
        return process.ready

    async def _first(self, process: Managed, health: Health) -> None:
        """Sooner than the engine's first: an app that has just opened its ports may be healthy, and if not, this was no check."""
        outcome = await self._outcome(process, health)
        if outcome is not None and outcome.status == 0:
            self._take(process, health, outcome, 0.0)

    async def _run(self, process: Managed, health: Health) -> None:
        while process.held:  # as the engine does with a container that is paused
            await process.change()
        age = time.monotonic() - process.born
        outcome = await self._outcome(process, health)
        if outcome is not None:
            self._take(process, health, outcome, age)

    def _take(self, process: Managed, health: Health, outcome: Outcome, age: float) -> None:
        if health.take(outcome, age):
            process.changed.set()
            self._changed()

    async def _outcome(self, process: Managed, health: Health) -> Outcome | None:
        """None for a run that stood still with its app."""
        holds, number = process.holds, next(self._numbers)
        outcome = self._runs[number] = asyncio.get_running_loop().create_future()
        run = self._run_of(process, health)
        try:
            async with asyncio.timeout(run.timeout + LATE_SECONDS):
                await self._send(process, number, run)
                told = await outcome
        except OSError as error:  # a timeout is one, too
            told = Outcome(TIMED_OUT, f"the check was not done: {str(error) or 'no outcome'}")
        finally:
            del self._runs[number]
        return None if process.holds != holds else told

    @staticmethod
    def _run_of(process: Managed, health: Health) -> Run:
        request, argv = process.request, list(health.check.command)
        if argv[0] in ("python", "python3"):
            argv[0] = sys.executable  # as the app itself
        return Run(argv, request["environment"], request["cwd"], health.check.timeout)

    async def _send(self, process: Managed, number: int, run: Run) -> None:
        message = {"command": "check", "id": number, **run.to_json()}
        if process.name in self._pods:
            self._pods.check(process.name, message)
        else:
            await self._beside.send(message)

    def on_checked(self, event: dict[str, Any]) -> None:
        """What the process that did a run says of it."""
        outcome = self._runs.get(event["id"])
        if outcome is not None and not outcome.done():
            outcome.set_result(Outcome(event["status"], event["output"]))

    async def close(self) -> None:
        """End all, and what they have started."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._beside.close()


class Beside:
    """The process that does the runs of apps without pods. It is started for the first one, and ends when we do."""

    def __init__(self, files: MeshFiles, told: Callable[[dict[str, Any]], None]) -> None:
        self._files, self._told = files, told
        self._channel: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def send(self, message: dict[str, Any]) -> None:
        """Raises OSError when it is gone."""
        if self._channel is None:
            await self._start()
        if self._channel is not None:
            self._channel.send(json.dumps(message).encode())

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._channel, log = ours, self._files.open_log(LOG)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read, ours)
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "devmesh.pods.check", str(theirs.fileno()), pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._files.root, start_new_session=True,
                )  # fmt: skip
            as_found(self._process.pid)
        finally:
            os.close(log)

    def _read(self, channel: socket.socket) -> None:
        try:
            message = channel.recv(MAX_RUN)
        except OSError:
            message = b""
        if message:
            self._told(json.loads(message))
        else:
            self._forget(channel)

    def _forget(self, channel: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(channel.fileno())
        channel.close()
        if self._channel is channel:
            self._channel = None

    async def close(self) -> None:
        if self._channel is not None:
            self._forget(self._channel)
        if self._process is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._process.wait()
                return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
