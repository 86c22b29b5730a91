"""One run of a healthcheck's test, by a process of its own: it ends the test in time, and with it whatever the test has started.

The kernel gives that process the test's orphans (PR_SET_CHILD_SUBREAPER, prctl(2)), so that nothing gets away by forking twice. In a pod it
is forked by the init, elsewhere by `python -m devmesh.pods.check FD`: a run comes as a JSON datagram, and so goes its outcome.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_OUTPUT = 4096  # bytes: what the engine keeps (moby, daemon/health.go, maxOutputLen)
CHUNK = 65536
MAX_RUN = 256 * 1024  # a whole environment
PR_SET_CHILD_SUBREAPER = 36
CANNOT_START = 127
TIMED_OUT = -1  # the engine's ExitCode for it
Start = Callable[[int], int]
"""Starts the test with this standard output and error; its pid."""


@dataclass(frozen=True, slots=True)
class Run:
    """`timeout` in seconds."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    timeout: float

    @staticmethod
    def parse(value: Mapping[str, Any]) -> Run:
        return Run(value["argv"], value["environment"], value["cwd"], float(value["timeout"]))

    def to_json(self) -> dict[str, Any]:
        return {"argv": list(self.argv), "environment": dict(self.environment), "cwd": self.cwd, "timeout": self.timeout}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` as `Popen.returncode` has it: 0 is healthy, below it the signal that ended the test; TIMED_OUT where we did."""

    status: int
    output: str

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "output": self.output}


def run(limit: float, start: Start) -> Outcome:
    """Do it, in a process that has no other children. `limit`: seconds."""
    become_subreaper()
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    output = _Output(read_end)
    pid = start(write_end)
    os.close(write_end)
    try:
        ended = _await(pid, output, time.monotonic() + limit)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if ended else TIMED_OUT
        output.read()
    finally:
        end_children()
    text = output.text()
    return Outcome(status, text if ended else f"Health check exceeded timeout ({limit:g}s){f': {text}' if text else ''}")


def _await(pid: int, output: _Output, deadline: float) -> bool:
    """Whether it has ended by then. What it leaves behind may hold its output open: that is no reason to wait."""
    process = os.pidfd_open(pid)
    poll = select.poll()
    for fd in (process, output.fd):
        poll.register(fd, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if process in ready:
                return True
            if output.fd in ready and not output.read():
                poll.unregister(output.fd)
    finally:
        os.close(process)
    return False


class _Output:
    """The first bytes of a pipe; the rest is read and forgotten, or its writer would stand still."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._kept = b""
        self._more = False

    def read(self) -> bool:
        """Take one piece; False at its end."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.fd, CHUNK)
            room = MAX_OUTPUT - len(self._kept)
            self._kept, self._more = self._kept + data[:room], self._more or len(data) > room
            return bool(data)
        return True

    def text(self) -> str:
        return self._kept.decode(errors="replace").strip() + ("..." if self._more else "")


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_children() -> None:
    """Kill everything below us and wait for it; the orphans of what is killed come to us, and are next."""
    while True:
        for pid in _below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended; or it is a set-uid program's, which ends by itself
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _below(pid: int) -> list[int]:
    """proc(5), /proc/<pid>/task/<tid>/children."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *_below(child)]
    return found


def start_beside(one: Run, output: int) -> int:
    """Start it as a plain process, in a session of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            for fd, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(fd, target)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.chdir(one.cwd)
            os.execvpe(one.argv[0], list(one.argv), dict(one.environment))  # noqa: S606 - the user's own command
        except OSError as error:
            os.write(2, f"cannot start {one.argv[0]}: {error.strerror or error}\n".encode())
        finally:
            os._exit(CANNOT_START)
    return pid


def fork_run(one: Run, identity: int, channel: socket.socket, start: Start) -> None:
    """Do it in a child of ours, which then tells `checked`. The child is the caller's to reap."""
    if os.fork():
        return
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        outcome = run(one.timeout, start)
        with contextlib.suppress(OSError):  # nobody is there any more to be told
            channel.send(json.dumps({"event": "checked", "id": identity, **outcome.to_json()}).encode())
    finally:
        os._exit(0)


def serve(channel: socket.socket) -> None:
    """Until the other end is closed; nothing of ours outlives that."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    while message := channel.recv(MAX_RUN):
        one = json.loads(message)
        wanted = Run.parse(one)
        fork_run(wanted, int(one["id"]), channel, functools.partial(start_beside, wanted))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    become_subreaper()
    end_children()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
