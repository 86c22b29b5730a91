"""Whether an app is healthy, by its healthcheck: judged as the engine judges a container's (moby, daemon/health.go)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from devmesh.config.healthcheck import Healthcheck
from devmesh.pods.check import Outcome

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


def exit_code(status: int) -> int:
    """As a shell and the engine say it: 128 and the signal's number for what a signal has ended."""
    return status if status >= 0 else 128 - status


@dataclass(slots=True)
class Health:
    """Of one app from its start to its end; `failures` in a row. Ages are seconds since its start."""

    check: Healthcheck
    status: str = STARTING
    failures: int = 0
    last: Outcome | None = field(default=None)

    def next_wait(self, age: float) -> float:
        """Seconds from one run's end to the next one's start."""
        within = self.status == STARTING and age < self.check.start_period
        return self.check.start_interval if within else self.check.interval

    def take(self, outcome: Outcome, age: float) -> bool:
        """Judge a run that began at that age; whether the status is another now."""
        before, self.last = self.status, outcome
        if outcome.status == 0:
            self.status, self.failures = HEALTHY, 0
        elif self.status != STARTING or age >= self.check.start_period:
            self.failures += 1
            if self.failures >= self.check.retries:
                self.status = UNHEALTHY
        return self.status != before

    def end(self) -> None:
        """Nobody looks any more: the engine says unhealthy of a container that has ended."""
        self.status = UNHEALTHY

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "failures": self.failures, "output": self.words()}

    def words(self) -> str:
        """What the last run said, or how it ended where it said nothing."""
        if self.last is None:
            return ""
        return self.last.output or ("" if self.last.status == 0 else f"exit {exit_code(self.last.status)}")
