"""Waiting for a condition that no event tells."""

import asyncio
from collections.abc import Callable

LIMIT = 60  # seconds that a test waits for what must come, on a machine that is busy with other tests


async def until(condition: Callable[[], bool], seconds: float = LIMIT) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
