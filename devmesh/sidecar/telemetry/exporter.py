"""Spans to the collector: a bounded queue, encoded in small slices so that no loop turn is long, sent in batches."""

from __future__ import annotations

import asyncio
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
POST_TIMEOUT = 5.0
LAST_WORDS = 2.0  # seconds that what is left may take when the sidecar stops


class SpanExporter:
    """`offer` on the hot path; everything else happens in one task. A batch that is not taken is offered once more, then dropped."""

    def __init__(self, encoder: SpanEncoder, url: str) -> None:
        self._encoder, self._url = encoder, url
        self._queue: deque[Record] = deque()
        self._unsent: tuple[bytes, int] | None = None
        self.dropped = 0  # spans, or records that never became spans
        self.sent = 0
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def offer(self, record: Record) -> None:
        if len(self._queue) >= QUEUE:
            self.dropped += 1
        else:
            self._queue.append(record)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="span exporter")

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POST_TIMEOUT)) as session:
            stopping = False
            while not stopping:
                try:
                    async with asyncio.timeout(INTERVAL):
                        stopping = await self._stopping.wait()
                except TimeoutError:
                    pass  # the interval is over
                await self._flush(session)
        self.dropped += len(self._queue) + (self._unsent[1] if self._unsent is not None else 0)

    async def _flush(self, session: aiohttp.ClientSession) -> None:
        unsent, self._unsent = self._unsent, None
        if unsent is not None and not await self._post(session, *unsent):
            self.dropped += unsent[1]
            self._unsent = None
        while self._queue:
            spans: list[bytes] = []
            for _ in range(BATCH // SLICE):
                for _ in range(min(SLICE, len(self._queue))):
                    spans += self._encoder.encode(self._queue.popleft())
                if not self._queue:
                    break
                await asyncio.sleep(0)
            body = self._encoder.export(spans)
            if not await self._post(session, body, len(spans)):
                self._unsent = (body, len(spans))
                return  # the collector is away: what is queued can wait

    async def _post(self, session: aiohttp.ClientSession, body: bytes, spans: int) -> bool:
        try:
            async with session.post(self._url, data=body, headers={"Content-Type": "application/x-protobuf"}) as response:
                taken = response.status < 300
        except (aiohttp.ClientError, TimeoutError) as error:
            log.debug("collector %s: %s", self._url, error)
            return False
        self.sent += spans if taken else 0
        return taken

    async def stop(self) -> None:
        """Send what is left, for a while."""
        self._stopping.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait({self._task}, timeout=LAST_WORDS)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        elif self._task.exception() is not None:
            log.error("span exporter failed", exc_info=self._task.exception())
        self._task = None
