"""One process that is to run, as the supervisor keeps it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from devmesh.config.healthcheck import Healthcheck
from devmesh.runtimes.local.health import HEALTHY, Health

FIRST_BACKOFF, MAX_BACKOFF = 0.2, 10.0
STABLE_SECONDS = 10.0  # a process that lived this long starts again without a wait


class Changed(asyncio.Event):
    """Set when something of a process is another. `followers` are set with it: events of those who watch several processes."""

    def __init__(self) -> None:
        super().__init__()
        self.followers: set[asyncio.Event] = set()

    def set(self) -> None:
        super().set()
        for one in self.followers:
            one.set()


@dataclass(slots=True)
class Managed:
    """`kind` decides who starts it again and in what order it is stopped.

    `listens`: it is ready only when its ports are open. `held` names the fault that has stopped it.
    `restart` is an app's policy (restarts.py); `over`: it has ended and is not started again. `holds` counts the pauses.
    `waits` is what must be before it is started (order.py), `refused` why it was not, and `refused_for` because of whom; `watcher` runs its
    healthcheck.
    `asked`: it was asked for and its pid is not known yet, `pid` being that of the one before it.
    `status` is None while it runs, `last_status` how the one before it ended.
    """

    name: str
    kind: str  # app | sidecar | pod | consul | addon | ours
    pid: int = 0
    started: int = 0
    asked: bool = False
    ready: bool = False
    restarts: int = 0
    wanted: bool = True
    backoff: float = FIRST_BACKOFF
    born: float = 0.0
    status: int | None = None
    last_status: int | None = None
    listens: bool = False
    held: str = ""
    restart: str = ""
    over: bool = False
    holds: int = 0
    waits: str = ""
    refused: str = ""
    refused_for: str = ""
    healthcheck: Healthcheck | None = None
    health: Health | None = None
    watcher: asyncio.Task[None] | None = None
    request: dict[str, Any] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)
    changed: Changed = field(default_factory=Changed)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "pid": self.pid,
            "started": self.started,
            "ready": self.ready and (self.health is None or self.health.status == HEALTHY),
            "restarts": self.restarts,
            "status": self.status,
            "last_status": self.last_status,
            "held": self.held,
            **({"state": "exited"} if self.over else {"state": "stopped"} if self.is_stopped else {}),
            **({"health": self.health.to_json()} if self.health else {}),
            **({"waits": self.refused or f"waits for {self.waits}"} if self.refused or self.waits else {}),
        }

    def begin(self, now: float) -> None:
        """A new process takes the place of the last."""
        self.born, self.ready, self.status, self.held, self.over = now, False, None, "", False
        self.waits, self.refused, self.refused_for = "", "", ""
        self._leave_health()
        self.health = Health(self.healthcheck) if self.healthcheck else None
        self.changed.set()

    def ended(self, status: int) -> None:
        self.ready, self.asked, self.status, self.last_status, self.held = False, False, status, status, ""
        self._leave_health()
        self.changed.set()

    def _leave_health(self) -> None:
        if self.watcher is not None:
            self.watcher.cancel()
        if self.health is not None:
            self.health.end()

    async def change(self) -> None:
        """Until something of it is another."""
        self.changed.clear()
        await self.changed.wait()

    def refuse(self, why: str, whose: str) -> None:
        """It is not started, because of whom."""
        self.waits, self.refused, self.refused_for = "", why, whose
        self.changed.set()

    @property
    def is_awaited(self) -> bool:
        """Whether it may be ready yet; a job that is done need not."""
        return not self.ready and not self.refused and not self.done

    @property
    def awaited(self) -> str:
        """It, as `up` says whom it waits for, and for whom that one does."""
        return f"{self.name} (for {self.waits})" if self.waits else self.name

    def known(self, pid: int, started: int) -> None:
        self.pid, self.started, self.asked = pid, started, False

    @property
    def runs(self) -> bool:
        return bool(self.pid) and self.status is None and self.wanted

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped it, and nobody started it since."""
        return not self.wanted and self.status is not None

    @property
    def done(self) -> bool:
        """Whether it is a job that has ended well."""
        return self.over and self.status == 0

    @property
    def settled(self) -> bool:
        """Whether it runs and has come as far as anybody waits for."""
        return self.runs and (self.ready or not self.listens)

    def how_it_failed(self, ports: Iterable[int], limit: float) -> str:
        """Of an app that was to listen on these within `limit` seconds; one that has ended may run again by now."""
        if not self.born and not self.wanted:
            return "was stopped before it was started"
        if self.last_status is not None:
            return f"exits at start (status {self.last_status})"
        return f"does not listen on its port {', '.join(map(str, ports))} after {limit:g} s"

    def next_wait(self, now: float) -> float:
        """Seconds until it is started again: doubling while it dies young."""
        if now - self.born > STABLE_SECONDS:
            self.backoff = FIRST_BACKOFF
        wait, self.backoff = self.backoff, min(self.backoff * 2, MAX_BACKOFF)
        return wait
