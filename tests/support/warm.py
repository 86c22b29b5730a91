"""The command line without its start: a process that has imported all of it, and forks for each command.

The e2e tests run hundreds of commands, and most of what one costs is imports. A command has everything that it has in a shell: arguments,
folder, environment, its own standard streams and exit status. `up` and `down`, and all of tests/cli, start the real program.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parent.parent.parent
MAX_REQUEST = 1 << 20


class WarmCommandLine:
    """One command after the other."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST)
        with theirs:
            command = [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)

    def run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` of devmesh would; one that takes longer than `timeout` seconds takes this process with it."""
        with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            given.write(stdin or "")
            given.seek(0)
            request = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
            socket.send_fds(self._channel, [json.dumps(request).encode()], [one.fileno() for one in (given, out, err)])
            self._channel.settimeout(timeout)
            try:
                status = int(self._channel.recv(16) or b"-1")
            except TimeoutError:
                self.close()
                warm.cache_clear()
                raise subprocess.TimeoutExpired(["devmesh", *arguments], timeout, _all(out), _all(err)) from None
            return subprocess.CompletedProcess(["devmesh", *arguments], status, _all(out), _all(err))

    def close(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


def _all(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@functools.cache
def warm() -> WarmCommandLine:
    """This process's own, from its first command on."""
    one = WarmCommandLine()
    atexit.register(one.close)
    return one


def _serve(channel: socket.socket) -> None:
    import devmesh.mesh  # noqa: F401, PLC0415 - what commands import when they need it
    from devmesh.cli.application import application, main  # noqa: PLC0415 - in this process only

    application()
    gc.freeze()
    while True:
        message, fds, _, _ = socket.recv_fds(channel, MAX_REQUEST, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            channel.close()
            _become(json.loads(message), fds)
            _leave(_status(main))
        for fd in fds:
            os.close(fd)
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _become(request: dict[str, object], fds: Sequence[int]) -> None:
    """What a new process has of its own."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["devmesh", *request["arguments"]]
    random.seed()


def _status(main: Callable[[], None]) -> int:
    """What the interpreter would make of it."""
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - said as the interpreter says it
        traceback.print_exc()
        return 1
    return 0


def _leave(status: int) -> NoReturn:
    """Without taking the interpreter down, which would touch every page of it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' own Ctrl-C ends the channel
    _serve(socket.socket(fileno=int(sys.argv[1])))
