"""Waiting for a mesh: what is not so yet, told while it lasts, and named with its log's last lines when time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devmesh.errors import DevmeshError
from devmesh.runtimes.runtime import Json, Tell

LOOK_AGAIN_SECONDS = 0.02
PATIENCE_SECONDS = 1.0  # a wait that is over by then needs no words
LAST_LINES = 20
SAID_LINES, SAID = 3, 300  # of a healthcheck's output, in a message


def wait_timeout(settings: Mapping[str, Any], usual: float) -> float:
    """Seconds that `up` waits for readiness; `usual` unless `--wait-timeout` says otherwise."""
    asked: float | None = settings.get("wait_timeout")
    return usual if asked is None else asked


class NotInTimeError(DevmeshError):
    """What was waited for is not there."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What is not so yet, of whom, and whose log tells why (as `devmesh logs` knows it)."""

    who: str
    what: str
    log: str

    def __str__(self) -> str:
        return f"{self.who}: {self.what}"


Look = Callable[[], Awaitable[list[Lack]]]
LastLines = Callable[[str], Sequence[str]]


class Awaited:
    """Tells who is waited for: when that has lasted for a while, and again when it has changed, not more often than that."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._since = clock()
        self._told: list[str] = []

    def see(self, names: Iterable[str]) -> None:
        found = sorted(set(names))
        if found and found != self._told and self._clock() - self._since >= PATIENCE_SECONDS:
            self._told, self._since = found, self._clock()
            self._tell({"event": "waiting", "for": found})


class Wait:
    """Phases of one wait that share a deadline, told as `up` tells its own."""

    def __init__(
        self,
        tell: Tell,
        limit: float,
        last_lines: LastLines,
        clock: Callable[[], float] = time.monotonic,
        again: float = LOOK_AGAIN_SECONDS,
    ) -> None:
        self._tell, self._limit, self._last_lines, self._clock, self._again = tell, limit, last_lines, clock, again
        self._began = clock()

    async def phase(self, name: str, look: Look) -> None:
        """Look until nothing lacks. Raises DevmeshError with what does when the time is up; one look is always taken."""
        started = self._clock()
        self._tell({"event": "phase", "name": name})
        await self.until_nothing_lacks(look)
        self._tell({"event": "phase_done", "name": name, "seconds": self._clock() - started})

    async def until_nothing_lacks(self, look: Look) -> None:
        """As `phase`, as a part of somebody else's."""
        awaited = Awaited(self._tell, self._clock)
        while lacks := await look():
            if self._clock() - self._began > self._limit:
                raise not_in_time(self._limit, lacks, self._last_lines)
            awaited.see(one.who for one in lacks)
            await asyncio.sleep(self._again)  # between looks at other processes


def not_in_time(limit: float, lacks: Sequence[Lack], last_lines: LastLines) -> NotInTimeError:
    """Everything that lacks, then the last words of the first whose log says something."""
    text = f"not everything was ready after {limit:g} s:\n" + "\n".join(f"  {one}" for one in lacks)
    for one in lacks:
        lines = list(last_lines(one.log))[-LAST_LINES:]
        if lines:
            return NotInTimeError(f"{text}\nthe last lines of {one.log}:\n" + "\n".join(lines), f"devmesh logs {one.log}")
    return NotInTimeError(text, "devmesh status")


def processes_lack(processes: Iterable[Json]) -> list[Lack]:
    """Processes that are not ready; an app that has done its work (a job on Docker) need not be.

    What ends again and again is said to have ended also while it has just been started once more.
    """
    return [
        Lack(one["name"], _why_not_ready(one), one["name"])
        for one in processes
        if not one["ready"] and not (one.get("state") == "exited" and one["status"] == 0)
    ]


def said(output: str) -> str:
    """The end of what a healthcheck printed, as the end of a sentence."""
    text = "\n".join(output.splitlines()[-SAID_LINES:])
    return f": {text if len(text) <= SAID else '...' + text[-SAID:]}" if text else ""


def _why_not_ready(one: Json) -> str:
    health = one.get("health") or {"status": "healthy"}
    status = one["status"] if one["status"] is not None else one.get("last_status")
    if status is not None and (one["status"] is not None or health["status"] != "unhealthy"):
        return f"ended with status {status}"
    if health["status"] != "healthy":
        return f"its healthcheck says {health['status']}{said(health['output'])}"
    return str(one.get("waits") or "is not ready")


def configuration_lacks(answer: Json) -> list[Lack]:
    """What keeps the newest generation from being in force everywhere; `answer` is the control plane's about it."""
    if not answer["compiled"]:
        why = answer.get("problem")
        return [Lack("control plane", f"has not compiled the newest configuration{f': {why}' if why else ''}", "control")]
    words = {
        "pending": "its sidecar has not acknowledged the newest configuration",
        "nacked": "its sidecar refuses the newest configuration: ",
        "disconnected": "its sidecar is not connected to the control plane",
    }
    return [
        Lack(one["workload"], words[one["state"]] + (one["error"] or "" if one["state"] == "nacked" else ""), f"{one['workload']}-sidecar")
        for one in answer["sidecars"]
        if one["state"] in words
    ]


def apps_lack(workloads: Iterable[Json]) -> list[Lack]:
    """Apps that take no connections, as their sidecars see it."""
    return [
        Lack(one["name"], f"its app takes no connections: {one['detail'] or 'no answer yet'}", one["name"])
        for one in workloads
        if not one["healthy"] and not one["gateway"]
    ]


def traffic_lacks(workloads: Iterable[Json], endpoints: Collection[str]) -> list[Lack]:
    """Apps that callers know nothing of yet. `endpoints` is who the control plane had given out before it said of `workloads` who is in sync."""
    workloads = list(workloads)
    return [
        *(
            Lack(one["name"], "its callers are not told of it yet", "control")
            for one in workloads
            if not one["gateway"] and one["name"] not in endpoints
        ),
        *(
            Lack(one["name"], "its sidecar has not acknowledged its newest configuration", f"{one['name']}-sidecar")
            for one in workloads
            if not one["synced"]
        ),
    ]
