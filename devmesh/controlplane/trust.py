"""Whose word counts about an app's health: the registry's, unless it cannot know better than we do."""

import asyncio
import math
import time
from collections.abc import Callable

from devmesh.controlplane.push import Pushes
from devmesh.controlplane.watch import Link, RegistryWatch
from devmesh.registry.client import Instance


class Trust:
    """`reported` is each sidecar's last word. Times are the clock's seconds, `ttl` that of the registry's checks."""

    def __init__(self, watch: RegistryWatch, pushes: Pushes, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch, self._pushes, self._ttl, self._clock = watch, pushes, ttl, clock
        self._started = clock()
        self.reported: dict[str, bool] = {}

    def is_healthy(self, instance: Instance) -> bool:
        """Whether it may get traffic.

        For one TTL after our start the registry's silence about an instance we found there is our own silence, until its sidecar says that it
        is unwell: that it is well reaches us before the registry knows. While the registry is away, and
        for one TTL after its return, its checks have run out because nobody could tell it: there the sidecar's last word counts.
        """
        if instance.status != "critical":
            return True
        now = self._clock()
        if now < self._started + self._ttl and instance.id in self._watch.inherited and self.reported.get(instance.id, True):
            return True
        return now < self._doubted_until() and self.reported.get(instance.id, False) and self._is_connected(instance.id, now)

    def _is_connected(self, name: str, now: float) -> bool:
        proxy = self._pushes.proxies.get(name)
        return proxy is not None and proxy.is_connected(now)

    def _doubted_until(self) -> float:
        if self._watch.link is not Link.SYNCED:
            return math.inf
        return self._watch.returned + self._ttl

    async def run(self) -> None:
        """Wake the watch's readers whenever trust comes back, for ever."""
        await self._sleep_until(self._started + self._ttl)
        while True:
            self._watch.changed.set()
            while not self._clock() < self._doubted_until() < math.inf:
                await self._watch.link_changed.wait()
            await self._sleep_until(self._doubted_until())

    async def _sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self._clock()))
