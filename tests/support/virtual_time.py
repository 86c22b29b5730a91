"""An event loop whose time passes only when nothing else can happen: timers in tests cost nothing and are exact."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

# A kernel under load may deliver bytes between two sockets of this process a little later than they were written: its thread for that
# (ksoftirqd) waits for a processor as others do.
GRACE = 0.02  # seconds of real time; the tests with sockets wait some five hundred times for it


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0 and jumps to the next timer when no file descriptor has news."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        alone = len(self.get_map()) == 1  # the loop's own pipe: no socket can have news
        found = super().select(0 if alone else GRACE)
        if not found:
            self._loop.seconds += timeout
        return found


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a VirtualLoop of its own. Its fixtures must be synchronous."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


async def pass_time(seconds: float) -> None:
    """Let the loop's time reach `seconds` from now, and everything happen that is due until then."""
    await asyncio.sleep(seconds)


async def settled() -> None:
    """Until only timers are left to wait for."""
    await asyncio.sleep(1e-9)
