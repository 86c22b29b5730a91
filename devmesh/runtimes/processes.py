"""Process identity by pid and start time, so that a reused pid is never killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from devmesh.errors import DevmeshError


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat (proc(5)), clock ticks since boot; None for no such process or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def is_same(pid: int, started: int | None) -> bool:
    return started is not None and start_time(pid) == started


def stop_all(processes: list[tuple[int, int]], grace: float) -> None:
    """SIGTERM to each process group that is still the one meant, SIGKILL to what is left after `grace` seconds.

    SIGCONT after SIGTERM: what is stopped (a fault's `--pause`) would not end until it is killed.
    """
    for numbers, wait in (((signal.SIGTERM, signal.SIGCONT), grace), ((signal.SIGKILL,), 2.0)):
        left = [(pid, started) for pid, started in processes if is_same(pid, started)]
        for pid, _ in left:
            for number in numbers:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, number) if os.getpgid(pid) == pid else os.kill(pid, number)
        await_ends(left, time.monotonic() + wait)


def await_ends(processes: list[tuple[int, int]], deadline: float) -> None:
    """Return when they have ended, or at that monotonic second. By pidfd: no polling, no reused pid."""
    for pid, started in processes:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if is_same(pid, started):
                poll = select.poll()  # not select(2): the supervisor of a large mesh has more than its 1,024 descriptors
                poll.register(fd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(fd)


def owner_of_port(address: str, port: int) -> str:
    """Who listens where `address`:`port` would, as far as /proc lets us read."""
    inode = _inode_of(address, port)
    if inode is None:
        return "another process"
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) == f"socket:[{inode}]" for fd in directory.iterdir()):
                name = (directory.parent / "comm").read_text().strip()
                return f"{name} (pid {directory.parent.name})"
    return "another process"


def _inode_of(address: str, port: int) -> str | None:
    """proc(5), /proc/net/tcp: addresses as 32-bit words in the machine's byte order, state 0A is LISTEN."""
    wanted = _in_proc(address)
    in_the_way = [f"{one}:{port:04X}" for one in (wanted, "0" * 8, f"{_MAPPED}{wanted}", "0" * 32)]
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for fields in (line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]):
                if fields[3] == "0A" and fields[1] in in_the_way:
                    return fields[9]
    return None


def _in_proc(address: str) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"


_MAPPED = "0" * 16 + f"{int.from_bytes(bytes.fromhex('0000ffff'), sys.byteorder):08X}"  # ::ffff:0:0/96 (RFC 4291, 2.5.5.2)


def port_in_use(address: str, port: int, what: str) -> DevmeshError:
    return DevmeshError(
        f"{address}:{port} ({what}) is in use by {owner_of_port(address, port)}", "stop it, or publish another port in the compose file"
    )
