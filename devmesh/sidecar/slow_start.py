"""Envoy's slow start: an endpoint that joins a cluster gets its share by and by ("Slow start mode" in its docs; asked of Envoy 1.40)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from devmesh.sidecar.config import SlowStart


class Warming:
    """Since when each endpoint of one cluster is there. Keys are `address:port`, `now` gives monotonic seconds."""

    def __init__(self, settings: SlowStart, now: Callable[[], float]) -> None:
        self.settings, self._now = settings, now
        self._since: dict[str, float] = {}
        self._until = 0.0  # when the last one to join has its full share

    def keep(self, endpoints: Iterable[str]) -> None:
        """The healthy ones there are now; one that comes back begins again, one that was ejected does not."""
        now = self._now()
        self._since = {key: self._since.get(key, now) for key in endpoints}
        self._until = max(self._since.values(), default=now) + self.settings.window

    def under_way(self) -> bool:
        return self._now() < self._until

    def factor(self, key: str) -> float:
        """What an endpoint's weight is multiplied by: more than 0, at most 1."""
        settings = self.settings
        passed = self._now() - self._since.get(key, 0.0)
        if passed >= settings.window:
            return 1.0
        share: float = (max(passed, 0.001) / settings.window) ** (1.0 / settings.aggression)
        return max(share, settings.min_weight)
