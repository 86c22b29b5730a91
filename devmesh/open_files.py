"""How many files, sockets among them, a process may have open at once.

Shells and engines start programs with 1,024, for the sake of those that use select(2); how many they may ask for is another number. A sidecar has
two for each request under way, a supervisor ten for each workload.
"""

from __future__ import annotations

import contextlib
import resource
from functools import cache


@cache
def found() -> tuple[int, int]:
    """The limits, soft and hard, that this process was started with."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def allow_many() -> None:
    """As many as we may ask for."""
    _, hard = found()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def as_found(pid: int) -> None:
    """Give somebody else's program that we have started the limits that we were started with."""
    with contextlib.suppress(OSError):  # it has ended, or is another user's by now
        resource.prlimit(pid, resource.RLIMIT_NOFILE, found())
