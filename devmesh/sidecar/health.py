"""Is the app there? A TCP connect to each address the sidecar would dial."""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from devmesh.sidecar.dialer import Dialer

# An app that starts is seen at once; one that stays away costs one connect a second.
FIRST_INTERVAL = 0.05
UNHEALTHY_INTERVAL = 1.0
HEALTHY_INTERVAL = 5.0
CONNECT_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    healthy: bool
    detail: str


class AppProbe:
    """Knows the app's health and says when it changes. Without an address to dial (a gateway) it is always healthy."""

    def __init__(self, targets: Iterable[tuple[str, int]], changed: Callable[[], None], dialer: Dialer | None = None) -> None:
        self._targets, self._dialer = tuple(targets), dialer or Dialer()
        self._changed = changed
        self.health = Health(not self._targets, "" if not self._targets else "not probed yet")

    async def run(self) -> None:
        """Probe until cancelled."""
        interval = FIRST_INTERVAL
        while self._targets:
            health = await self._probe()
            if health != self.health:
                self.health = health
                self._changed()
            interval = HEALTHY_INTERVAL if health.healthy else min(UNHEALTHY_INTERVAL, interval * 1.5)
            await asyncio.sleep(interval)

    async def _probe(self) -> Health:
        errors = [error for error in [await connect_error(self._dialer, *target) for target in self._targets] if error]
        return Health(not errors, "; ".join(errors))


async def connect_error(dialer: Dialer, address: str, port: int) -> str:
    """Why nothing listens there; empty when something does."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await dialer.probe(address, port)
    except TimeoutError:
        return f"{address}:{port}: no answer within {CONNECT_TIMEOUT:.0f} s"
    except OSError as error:
        return f"{address}:{port}: {os.strerror(error.errno) if error.errno else error}"
    return ""
