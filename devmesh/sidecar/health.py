"""Is the app there? A TCP connect to each address the sidecar would dial."""

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from devmesh.sidecar.dialer import Dialer

# An app that starts is seen at once, also seconds after its sidecar; a look costs some 0.1 ms.
FIRST_INTERVAL = 0.05
UNHEALTHY_INTERVAL = 0.1
HEALTHY_INTERVAL = 5.0
CONNECT_TIMEOUT = 1.0
# Looks that get no answer before an app that was there counts as gone: a busy machine is slow (Kubernetes' default failureThreshold).
SILENT_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Health:
    healthy: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Miss:
    """One address where a look found nobody; `silent` when nothing came back in time."""

    text: str
    silent: bool


class AppProbe:
    """Knows the app's health and says when it changes. Without an address to dial (a gateway) it is always healthy."""

    def __init__(
        self,
        targets: Iterable[tuple[str, int]],
        changed: Callable[[], None],
        dialer: Dialer | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._targets, self._dialer = tuple(targets), dialer or Dialer()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._changed = changed
        self._due = asyncio.Event()
        self._silent = 0
        self._dialer.missed = self._missed
        self.health = Health(not self._targets, "" if not self._targets else "not probed yet")

    def _missed(self, host: str, port: int) -> None:
        """A request did not get through to the app: look at once."""
        if self.health.healthy and (host, port) in self._targets:
            self._due.set()

    @property
    def is_due(self) -> bool:
        """Whether something happened that the next look will see."""
        return self._due.is_set()

    async def run(self) -> None:
        """Probe until cancelled."""
        interval = FIRST_INTERVAL
        while self._targets:
            self._due.clear()
            health = await self._probe()
            was_healthy = self.health.healthy
            if health != self.health:
                self.health = health
                self._changed()
            interval = next_interval(interval, healthy=health.healthy and not self._silent, was_healthy=was_healthy)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), spread(interval, self._rng))

    async def _probe(self) -> Health:
        return self._judged([miss for miss in [await look(self._dialer, *target) for target in self._targets] if miss])

    def _judged(self, misses: Sequence[Miss]) -> Health:
        """A refusal is certain at once; silence is not."""
        self._silent = self._silent + 1 if misses and all(one.silent for one in misses) else 0
        if self.health.healthy and 0 < self._silent < SILENT_LOOKS:
            return self.health
        return Health(not misses, "; ".join(one.text for one in misses))


def next_interval(interval: float, *, healthy: bool, was_healthy: bool) -> float:
    """Seconds until the next look: an app that has just gone is probably on its way back."""
    if healthy:
        return HEALTHY_INTERVAL
    return FIRST_INTERVAL if was_healthy else min(UNHEALTHY_INTERVAL, interval * 1.5)


def spread(interval: float, rng: random.Random) -> float:
    """A little less of it by chance: what many sidecars that began at one moment do, they would do at one moment ever after."""
    return interval * rng.uniform(0.8, 1.0)


async def look(dialer: Dialer, address: str, port: int) -> Miss | None:
    """Why there is no connection; None when there is one."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await dialer.probe(address, port)
    except TimeoutError:
        return Miss(f"{address}:{port}: no answer within {CONNECT_TIMEOUT:.0f} s", silent=True)
    except OSError as error:
        return Miss(f"{address}:{port}: {os.strerror(error.errno) if error.errno else error}", silent=False)
    return None
