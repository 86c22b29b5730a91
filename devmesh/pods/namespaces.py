"""Linux namespaces through libc: unshare(2), mount(2), prctl(2), user_namespaces(7). Raises OSError naming the call."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
POD_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0) -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None),
        f"mount {source} on {target}",
    )


def die_with_parent(number: int) -> None:
    """Have the kernel send us this signal when our parent ends, however it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def map_user(pid: int, inside_uid: int, inside_gid: int, outside_uid: int, outside_gid: int) -> None:
    """Map one user and one group of `pid`'s user namespace; all of them, unchanged, where the writer is root there.

    user_namespaces(7): without CAP_SETGID in the parent namespace a group map needs setgroups denied first.
    """
    directory = Path(f"/proc/{pid}")
    if outside_uid == inside_uid == 0:
        for name in ("uid_map", "gid_map"):
            (directory / name).write_text(unchanged(Path("/proc/self", name).read_text()))
        return
    (directory / "setgroups").write_text("deny")
    (directory / "uid_map").write_text(f"{inside_uid} {outside_uid} 1")
    (directory / "gid_map").write_text(f"{inside_gid} {outside_gid} 1")


def unchanged(own: str) -> str:
    """A map that gives every id we have its own number: root in a container has not all of them (user_namespaces(7), uid_map)."""
    ranges = [line.split() for line in own.splitlines()]
    return "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
