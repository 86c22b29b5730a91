"""Deadlines are met at most one period late; idle things are told once, and only when nothing touched them."""

from __future__ import annotations

from devmesh.sidecar.timers import PERIOD, Idle, Sweep
from tests.support.virtual_time import in_virtual_time, now, pass_time


class Timed:
    def __init__(self, sweep: Sweep, turns: int) -> None:
        self._sweep, self.left, self.times = sweep, turns, []

    def check(self, now: float) -> None:
        self.times.append(round(now, 6))
        self.left -= 1
        if not self.left:
            self._sweep.discard(self)


@in_virtual_time
async def test_the_sweep_runs_only_while_something_is_in_it():
    sweep = Sweep(now)
    first, second = Timed(sweep, 1), Timed(sweep, 3)
    sweep.add(first)
    sweep.add(second)
    await pass_time(10 * PERIOD)
    assert (first.times, second.times) == ([PERIOD], [PERIOD, 2 * PERIOD, round(3 * PERIOD, 6)])
    sweep.add(third := Timed(sweep, 1))
    await pass_time(PERIOD)
    assert third.times == [round(11 * PERIOD, 6)]


@in_virtual_time
async def test_a_stopped_sweep_asks_nobody():
    sweep = Sweep(now)
    sweep.add(timed := Timed(sweep, 1))
    sweep.stop()
    await pass_time(10 * PERIOD)
    assert timed.times == []


@in_virtual_time
async def test_idle_is_told_once_nothing_touches_any_more():
    told = []
    idle = Idle(10, now, lambda: told.append(now()) or True)
    for _ in range(4):
        await pass_time(5)
        idle.touch()
    await pass_time(9)
    assert told == []
    await pass_time(100)
    assert told == [30]


@in_virtual_time
async def test_idle_asks_again_until_it_is_taken():
    asked = []
    Idle(2, now, lambda: asked.append(now()) or len(asked) == 3)
    await pass_time(100)
    assert asked == [2, 4, 6]


@in_virtual_time
async def test_a_stopped_one_tells_nothing():
    told = []
    idle = Idle(1, now, lambda: told.append(now()) or True)
    idle.stop()
    await pass_time(100)
    assert told == []
