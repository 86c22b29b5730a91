"""One sweep over what is in flight instead of a timer each: a deadline is met at most one period late. Idle connections wait longer: `Idle`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

PERIOD: Final = 0.05  # seconds


class Timed(Protocol):
    def check(self, now: float) -> None: ...


class Sweep:
    """Runs only while something is in it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._members: set[Timed] = set()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Timed) -> None:
        self._members.add(member)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(PERIOD, self._turn)

    def discard(self, member: Timed) -> None:
        self._members.discard(member)

    def _turn(self) -> None:
        self._handle = None
        now = self._now()
        for member in list(self._members):
            member.check(now)
        if self._members:
            self._handle = asyncio.get_running_loop().call_later(PERIOD, self._turn)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._members.clear()


class Idle:
    """Calls `expired` once nothing has been touched for `limit` seconds: a timer for each limit's length, not for each touch."""

    def __init__(self, limit: float, now: Callable[[], float], expired: Callable[[], bool]) -> None:
        """`expired` returns False to be asked again after another `limit`."""
        self._limit, self._now, self._expired = limit, now, expired
        self._touched = now()
        self._handle: asyncio.TimerHandle | None = None
        self._wait(limit)

    def touch(self) -> None:
        self._touched = self._now()

    def _wait(self, seconds: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(seconds, self._turn)

    def _turn(self) -> None:
        self._handle = None
        left = self._touched + self._limit - self._now()
        if left > 0:
            self._wait(left)
        elif not self._expired():
            self._wait(self._limit)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
