"""The sidecar's side of the control plane: polls, swaps, acknowledges, and reports the app's health.

Whatever happens there, the configuration in force stays in force.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from devmesh.sidecar.config import ConfigError, ProxyConfig
from devmesh.sidecar.dialer import Dialer
from devmesh.sidecar.health import AppProbe, spread
from devmesh.xds.rest import AGGREGATED, GATEWAY_TYPES, SIDECAR_TYPES, AggregatedResponse, Conversation

log = logging.getLogger(__name__)
HOLD_SECONDS = 30.0
# On top of the hold: a control plane that neither answers nor closes.
ANSWER_MARGIN_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 5.0
REPORT_SECONDS = 5.0
# After a report that did not arrive.
UNANSWERED_SECONDS = 0.5
Json = Mapping[str, Any]


class ControlPlaneError(Exception):
    """The control plane is absent or says no; try again."""


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Return when it is set or the time is over. Not `wait_for`: before Python 3.12 that swallows a cancellation which meets the event."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Agent:
    """One sidecar's conversation. `parse` raises ConfigError for a snapshot that cannot be run, `swap` puts one in force."""

    def __init__(
        self,
        url: str,
        node: Json,
        *,
        parse: Callable[[Json], ProxyConfig],
        swap: Callable[[ProxyConfig], Awaitable[None]],
        context: Callable[[], Awaitable[ssl.SSLContext | bool]],
        probe_targets: tuple[tuple[str, int], ...] = (),
        dialer: Dialer | None = None,
        is_serving: Callable[[], bool] = lambda: True,
        seen: Callable[[], Json] = dict,
        rng: random.Random | None = None,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self._url, self._node = url, node
        self._parse, self._swap, self._context = parse, swap, context
        self._is_serving, self._seen = is_serving, seen
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._hold_seconds = hold_seconds
        self._conversation = Conversation(GATEWAY_TYPES if str(node["id"]).startswith("router~") else SIDECAR_TYPES)
        self._report_due = asyncio.Event()
        self._reported_serving = False
        self._probe = AppProbe(probe_targets, self._report_due.set, dialer, self._rng)
        self.version = ""
        self.connected = False
        self.last_error = ""
        self.rejects = 0
        self.updates = 0

    async def run(self) -> None:
        """Converse until cancelled."""
        connector = aiohttp.TCPConnector(ssl=await self._context(), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll_for_ever(session), name="poll")
            tasks.create_task(self._probe.run(), name="app probe")
            tasks.create_task(self._report_for_ever(session), name="health report")

    # Polls

    async def _poll_for_ever(self, session: aiohttp.ClientSession) -> None:
        failures = 0
        while True:
            try:
                answer = await self._ask(session)
                if answer is not None:
                    await self._take(answer)
            except ControlPlaneError as error:
                failures += 1
                self._failed(str(error))
                await asyncio.sleep(self._backoff(failures))
            else:
                failures = 0
                self.connected = True

    def _failed(self, why: str) -> None:
        if self.connected or why != self.last_error:
            log.warning("control plane: %s; %s stays in force", why, self.version or "nothing")
        self.connected, self.last_error = False, why

    def _backoff(self, failures: int) -> float:
        ceiling: float = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16), MAX_BACKOFF_SECONDS)
        return ceiling * self._rng.uniform(0.5, 1.0)

    async def _ask(self, session: aiohttp.ClientSession) -> AggregatedResponse | None:
        """One poll, which says what became of the last answer."""
        headers = {"x-envoy-expected-rq-timeout-ms": str(int(self._hold_seconds * 1000))}
        body = self._conversation.request(self._node)
        status, answer = await self._post(session, f"/v3/discovery:{AGGREGATED}", body, headers, self._hold_seconds)
        if status == 304:
            return None
        if status != 200:
            raise ControlPlaneError(f"{status} {answer[:200].decode(errors='replace').strip()}")
        try:
            return AggregatedResponse.parse(orjson.loads(answer))
        except ValueError as error:
            raise ControlPlaneError(str(error)) from error

    async def _post(
        self, session: aiohttp.ClientSession, path: str, body: Json, headers: Mapping[str, str], hold: float
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=hold + ANSWER_MARGIN_SECONDS)
        headers = {"content-type": "application/json", **headers}
        try:
            async with session.post(self._url + path, data=orjson.dumps(body), headers=headers, timeout=timeout) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ControlPlaneError(f"{self._url} does not answer: {error!r}") from error

    async def _take(self, answer: AggregatedResponse) -> None:
        """Swap, or say no with the resource's name when it cannot be run; the next poll tells."""
        try:
            config = self._parse(self._conversation.received(answer))
        except ConfigError as error:
            log.error("refused configuration %s: %s", answer.version, error)  # noqa: TRY400 - the message is what the user needs
            self.rejects += 1
            self._conversation.refuse(error.resource, str(error))
            return
        await self._swap(config)
        self._conversation.accept()
        self.version = config.version
        self.updates += 1
        if self._is_serving() != self._reported_serving:
            self._report_due.set()

    # Health

    def report_now(self) -> None:
        """Something that the report carries is another."""
        self._report_due.set()

    async def _report_for_ever(self, session: aiohttp.ClientSession) -> None:
        """At every change and at least every 5 s. A lost report is made good by the next one."""
        while True:
            self._report_due.clear()
            try:
                status, answer = await self._post(session, "/v1/health", self._report(), {}, 0.0)
                pause = spread(REPORT_SECONDS, self._rng) if status == 200 else UNANSWERED_SECONDS
                if status not in {200, 503}:
                    log.warning("health report: %d %s", status, answer[:200].decode(errors="replace").strip())
            except ControlPlaneError:
                pause = UNANSWERED_SECONDS  # the polls have said so already
            await wait_at_most(self._report_due, pause)

    def _report(self) -> Json:
        health = self._probe.health
        serving = self._reported_serving = self._is_serving()
        detail = health.detail if serving else "the sidecar has no configuration yet"
        # Three versions of a service share an identity, so the report says which workload it is from.
        return {"node": {"id": self._node["id"]}, "healthy": health.healthy and serving, "detail": detail, "restarts": 0, **self._seen()}
