"""What `up` and `wait` show while they last: the part under way, who is awaited, and the seconds that each part took."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.status import Status

from devmesh.cli import output

COLUMN = 26
NAMED = 4  # of those that are awaited: a line's worth


def few(names: Sequence[str]) -> str:
    """The first ones, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


class Progress:
    """Takes the events of a wait. On a terminal the part under way turns; elsewhere a line tells who is awaited."""

    def __init__(self) -> None:
        self._status: Status | None = output.err.status("") if output.err.is_terminal else None
        self._part = ""

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, event: dict[str, Any]) -> None:
        name = event["event"]
        if name == "phase":
            self._part = event["name"]
            self._turn(self._part)
        elif name == "waiting":
            self._waiting(few(event["for"]))
        elif name == "phase_done":
            output.note(f"  {event['name']:<{COLUMN}} {event['seconds']:6.2f} s")
        elif name == "diagnostic":
            place = ":".join(str(part) for part in (event["file"], event["line"], event["column"]) if part)
            output.note(f"  {place}: {event['severity']} [{event['code']}] {event['message']}")
        elif name == "note":
            output.note(f"  {event['message']}")
        elif name == "done":
            output.note(f"  {'ready':<{COLUMN}} {event['seconds']:6.2f} s\n")

    def _turn(self, text: str) -> None:
        if self._status is not None:
            self._status.update(output.literal(text))

    def _waiting(self, whom: str) -> None:
        if self._status is not None:
            self._turn(f"{self._part}: waiting for {whom}")
        else:
            output.note(f"  {self._part}: waiting for {whom}")
