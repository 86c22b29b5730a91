"""Who is started after whom, and restarted with whom."""

from __future__ import annotations

from dataclasses import dataclass

from devmesh.config.dependencies import Dependency
from devmesh.runtimes.dependents import in_order, to_restart


@dataclass(frozen=True)
class Service:
    name: str
    depends_on: tuple[Dependency, ...]


def service(name, *needs):
    return Service(name, needs)


def needs(*names, restart=False):
    return [Dependency(name, restart=restart) for name in names]


SHOP = [
    service("web", *needs("api", "cache")),
    service("api", *needs("db", "migrate")),
    service("migrate", *needs("db")),
    service("db"),
    service("cache", *needs("disk")),
    service("disk"),
]


def test_each_is_started_after_whom_it_depends_on():
    assert [one.name for one in in_order(SHOP)] == ["db", "migrate", "api", "disk", "cache", "web"]


def test_who_asks_for_it_is_restarted_with_its_dependency_and_so_on():
    mesh = [
        service("web", *needs("api", restart=True)),
        service("api", *needs("db", restart=True), *needs("cache")),
        service("job", *needs("db")),
        service("db"),
        service("cache"),
    ]
    assert [name for name, _ in to_restart(mesh, ["db"])] == ["api", "web"]
    assert [[one.name for one in waits] for _, waits in to_restart(mesh, ["db"])] == [["db"], ["api"]], (
        "not for the cache, which was left alone"
    )
    assert list(to_restart(mesh, ["cache"])) == []
