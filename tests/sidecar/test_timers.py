"""Deadlines are met at most one period late; idle things are told once, and only when nothing touched them."""

from __future__ import annotations

import asyncio
import itertools
import time

from devmesh.sidecar.timers import PERIOD, Idle, Sweep
from tests.sidecar.sidecars import until


class Timed:
    def __init__(self, sweep: Sweep, turns: int) -> None:
        self._sweep, self.left, self.times = sweep, turns, []

    def check(self, now: float) -> None:
        self.times.append(now)
        self.left -= 1
        if not self.left:
            self._sweep.discard(self)


async def test_the_sweep_runs_only_while_something_is_in_it():
    sweep = Sweep(time.monotonic)
    first, second = Timed(sweep, 1), Timed(sweep, 3)
    sweep.add(first)
    sweep.add(second)
    await until(lambda: not len(sweep))
    assert (len(first.times), len(second.times)) == (1, 3)
    assert all(later - earlier < PERIOD * 4 for earlier, later in itertools.pairwise(second.times))
    sweep.add(third := Timed(sweep, 1))
    await until(lambda: not third.left)


async def test_a_stopped_sweep_asks_nobody():
    sweep = Sweep(time.monotonic)
    sweep.add(timed := Timed(sweep, 1))
    sweep.stop()
    await asyncio.sleep(PERIOD * 2)
    assert timed.times == []


async def test_idle_is_told_once_nothing_touches_any_more():
    told = asyncio.Event()
    idle = Idle(0.1, time.monotonic, lambda: told.set() or True)
    started = time.monotonic()
    for _ in range(4):
        await asyncio.sleep(0.05)
        idle.touch()
    await asyncio.wait_for(told.wait(), 5)
    assert time.monotonic() - started >= 0.29


async def test_idle_asks_again_until_it_is_taken():
    asked = []
    Idle(0.02, time.monotonic, lambda: asked.append(1) or len(asked) == 3)
    await until(lambda: len(asked) == 3)
    await asyncio.sleep(0.06)
    assert len(asked) == 3


async def test_a_stopped_one_tells_nothing():
    told = []
    idle = Idle(0.01, time.monotonic, lambda: told.append(1) or True)
    idle.stop()
    await asyncio.sleep(0.05)
    assert told == []
