"""A supervisor's life: the folder's lock, what an earlier one left, `up`, and then until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from devmesh.errors import DevmeshError
from devmesh.open_files import allow_many
from devmesh.runtimes.claims import claim_mesh_number
from devmesh.runtimes.faults import watch_faults
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.launchers import Launchers
from devmesh.runtimes.local.leftovers import clean_up
from devmesh.runtimes.local.preload import Preload
from devmesh.runtimes.local.supervisor import Supervisor

FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def live(compose_file: Path, report: socket.socket, launchers: list[tuple[int, socket.socket]], began: float) -> int:
    """Be the supervisor; the exit status.

    `report` gives the settings, a line of JSON, and is told what happens; the launchers (pid, channel) are ours, then that of pods; `up`
    began at that monotonic second.
    """
    allow_many()
    preloads = [Preload.of(*one) for one in launchers]
    try:
        with report, report.makefile() as given, _heard_or_not(report.makefile("w")) as told:
            settings, files = json.loads(given.readline()), MeshFiles.of(compose_file)
            return asyncio.run(supervise(Supervisor(compose_file, files, settings, told, Launchers(*preloads), began), files))
    finally:
        for one in preloads:
            one.end()


@contextlib.contextmanager
def _heard_or_not(report: IO[str]) -> Iterator[IO[str]]:
    """What was said last may be on its way to somebody who has gone."""
    try:
        yield report
    finally:
        with contextlib.suppress(OSError):
            report.close()


async def supervise(supervisor: Supervisor, files: MeshFiles) -> int:
    """Live until `down`, a signal or a failed `up`; the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stopping.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        lock = files.lock()
        if clean_up(files):
            supervisor.say(event="note", message="stopped what a killed supervisor had left running")
        mesh_number, mesh_lock = claim_mesh_number()
        supervisor.keep(mesh_lock)  # what a killed supervisor leaves still listens on the number's addresses
    except DevmeshError as error:
        supervisor.say(event="error", message=error.message, hint=error.hint, status=error.exit_status)
        return error.exit_status
    with lock, mesh_lock:
        return await _live(supervisor, mesh_number, files)


async def _live(supervisor: Supervisor, number: int, files: MeshFiles) -> int:
    server = await supervisor.serve_commands()
    started = False
    try:
        await _up(supervisor, number)
        started = True
    except DevmeshError as error:
        started = bool(supervisor.processes) and "The rest of the mesh runs." in error.message
        supervisor.say(event="error", message=error.message, hint=error.hint, status=error.exit_status, runs=started)
    except Exception as error:  # noqa: BLE001 - `up` must hear of it, whatever it is
        supervisor.say(event="error", **_unexpected(error, files))
        with contextlib.suppress(OSError):  # the log may be what there is no room for
            traceback.print_exc()
    if started:
        supervisor.save()
        registry_url = f"http://127.0.0.1:{supervisor.ports['registry']}"
        watcher = asyncio.create_task(
            watch_faults(registry_url, files.mesh_token(), supervisor.stopping, supervisor.holding.look), name="fault expiry"
        )
        await supervisor.stopping.wait()
        watcher.cancel()
    supervisor.stopping.set()
    await supervisor.stop()
    server.close()
    await supervisor.answered()
    return 0 if started else 1


def _unexpected(error: Exception, files: MeshFiles) -> dict[str, object]:
    if isinstance(error, OSError) and error.errno in FULL_OR_READ_ONLY:
        return {"message": f"{files.root} cannot be written to: {error.strerror}", "hint": f"df -h {files.root}", "status": 1}
    return {"message": f"{type(error).__name__}: {error}", "hint": f"see {files.log('supervisor')}", "status": 70}


async def _up(supervisor: Supervisor, number: int) -> None:
    """Bring the mesh up; a `down` or a signal meanwhile ends that. Raises DevmeshError."""
    bringing = asyncio.create_task(supervisor.up(number), name="up")
    told = asyncio.create_task(supervisor.stopping.wait(), name="told to stop")
    await asyncio.wait((bringing, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    ended = bringing.cancel()
    await asyncio.wait((bringing,))
    supervisor.up_ended.set()
    if ended:
        raise DevmeshError("the mesh was taken down before it was ready", "devmesh up")
    await bringing
