"""Spans to the collector: a bounded queue, encoded in small slices so that no loop turn is long, sent in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

import aiohttp

from devmesh.sidecar.record import Record
from devmesh.sidecar.telemetry.spans import SpanEncoder

log = logging.getLogger(__name__)
QUEUE = 8192  # records; more are dropped and counted
SLICE = 16  # records encoded in one loop turn: 16 kept p99 at 0.35 ms where 256 made it 2.3 ms
BATCH = 512  # records in one POST
INTERVAL = 0.2  # seconds between flushes


class SpanExporter:
    """`offer` on the hot path; everything else happens in one task."""

    def __init__(self, encoder: SpanEncoder, url: str) -> None:
        self._encoder, self._url = encoder, url
        self._queue: deque[Record] = deque()
        self.dropped = 0
        self.sent = 0
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    def offer(self, record: Record) -> None:
        if len(self._queue) >= QUEUE:
            self.dropped += 1
        else:
            self._queue.append(record)

    def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self._task = asyncio.get_running_loop().create_task(self._run(), name="span exporter")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        while self._queue:
            spans: list[bytes] = []
            count = 0
            while self._queue and count < BATCH:
                for _ in range(min(SLICE, len(self._queue))):
                    spans += self._encoder.encode(self._queue.popleft())
                    count += 1
                await asyncio.sleep(0)
            await self._post(self._encoder.export(spans), len(spans))

    async def _post(self, body: bytes, spans: int) -> None:
        if self._session is None:
            return
        try:
            async with self._session.post(self._url, data=body, headers={"Content-Type": "application/x-protobuf"}) as response:
                ok = response.status < 300
        except (aiohttp.ClientError, TimeoutError):
            ok = False
        if ok:
            self.sent += spans
        else:
            self.dropped += spans
            log.debug("collector %s did not take %s spans", self._url, spans)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.flush()
        if self._session is not None:
            await self._session.close()
