"""A live Envoy over a bootstrap, with one worker; what it logs is on its standard output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

ARGUMENTS = ("--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "error")


@contextlib.asynccontextmanager
async def running_envoy(
    binary: Path, bootstrap: dict[str, Any], directory: Path, ready: Callable[[], Awaitable[bool]], *, flush_milliseconds: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """From when it is `ready` until the block ends. An Envoy that ends before fails with its own words."""
    (file := directory / "envoy.json").write_text(json.dumps(bootstrap))
    errors = directory / "envoy.log"
    with errors.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(binary), "-c", str(file), *ARGUMENTS, "--file-flush-interval-msec", str(flush_milliseconds), stdout=subprocess.PIPE,
            stderr=log, env={**os.environ},
        )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not await ready():
                assert process.returncode is None, errors.read_text()
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
