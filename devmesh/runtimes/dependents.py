"""Who depends on whom, whatever starts them: the order of starting, and who is restarted with whom (Compose specification, "depends_on")."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from devmesh.config.dependencies import Dependency

DEPENDENT_SECONDS = 120.0  # that who is restarted with another waits until that one is as it needs it


class Dependent(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def depends_on(self) -> Sequence[Dependency]: ...


D = TypeVar("D", bound=Dependent)


def in_order(dependents: Iterable[D]) -> list[D]:
    """Each after those it depends on, else as they are written."""
    known = {one.name: one for one in dependents}
    found: dict[str, D] = {}

    def visit(one: D) -> None:
        if one.name not in found:
            for needed in one.depends_on:
                if needed.name in known:
                    visit(known[needed.name])
            found[one.name] = one

    for one in known.values():
        visit(one)
    return list(found.values())


def to_restart(dependents: Iterable[Dependent], restarted: Collection[str]) -> Iterator[tuple[str, tuple[Dependency, ...]]]:
    """Who is restarted with these (`restart: true`), each with what it then waits for."""
    gone = set(restarted)
    for one in in_order(dependents):
        needs = tuple(needed for needed in one.depends_on if needed.restart and needed.name in gone)
        if needs and one.name not in gone:
            gone.add(one.name)
            yield one.name, needs
