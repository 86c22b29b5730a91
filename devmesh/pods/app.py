"""The app's process: the init's child, in a user namespace of its own, with the user's own uid and gid.

Its own namespace takes the pod's network out of its hands: the redirect's rules belong to the init's.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devmesh.pods.namespaces import CLONE_NEWUSER, map_user, unshare

CANNOT_START = 127  # as a shell says it


@dataclass(frozen=True, slots=True)
class AppSpec:
    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    uid: int
    gid: int


def start(spec: AppSpec, log: int) -> int:
    """Fork it, standard output and error to `log`; its pid in our PID namespace."""
    unshared_read, unshared_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(unshared_read)
        os.close(mapped_write)
        _become(spec, log, unshared_write, mapped_read)
    os.close(unshared_write)
    os.close(mapped_read)
    with contextlib.suppress(OSError):  # it ended already: the pipes' ends tell it, the reaper tells us
        if os.read(unshared_read, 1):
            map_user(pid, spec.uid, spec.gid, 0, 0)
            os.write(mapped_write, b"M")
    os.close(unshared_read)
    os.close(mapped_write)
    return pid


def _become(spec: AppSpec, log: int, unshared: int, mapped: int) -> None:
    """Never returns."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for fd, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        _default_signals()
        unshare(CLONE_NEWUSER)
        os.write(unshared, b"U")
        _await(mapped)
        os.chdir(spec.cwd)
        os.execvpe(spec.argv[0], list(spec.argv), dict(spec.environment))  # noqa: S606 - the user's own command
    except OSError as error:
        os.write(2, f"cannot start {spec.argv[0]}: {error.strerror or error}\n".encode())
    finally:
        os._exit(CANNOT_START)


def _await(mapped: int) -> None:
    if not os.read(mapped, 1):
        raise OSError("the pod's init could not map the user")


def _default_signals() -> None:
    """Python ignores some, and an ignored signal stays ignored across exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
