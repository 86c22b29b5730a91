"""What `devmesh fault inject` asks for: judged against the topology, then written down as a `Fault`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from devmesh.config.kinds import DEVMESH
from devmesh.config.topology_types import Topology, Workload
from devmesh.errors import DevmeshError, UsageError

FAULT_KIND = "Fault"


@dataclass(frozen=True, slots=True)
class FaultRequest:
    """`abort` and `delay` are for requests, which `percent`, `caller`, `path` and `headers` choose; `pause`, `kill` and `partition` stand alone.

    `partition` is its other side. `delay` and `lifetime` in seconds; `percent` None: all.
    """

    target: str
    abort: int | None = None
    delay: float | None = None
    percent: float | None = None
    caller: str | None = None
    path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    lifetime: float | None = None
    pause: bool = False
    kill: bool = False
    partition: str | None = None

    @property
    def alone(self) -> list[str]:
        """The options given that are a whole fault."""
        given = (("--pause", self.pause), ("--kill", self.kill), ("--partition", self.partition is not None))
        return [option for option, is_given in given if is_given]

    @property
    def for_requests(self) -> list[str]:
        """The options given that say what happens to requests."""
        return [option for option, value in (("--abort", self.abort), ("--delay", self.delay)) if value is not None]

    @property
    def choosing(self) -> list[str]:
        """The options given that choose requests."""
        given = (("--percent", self.percent), ("--from", self.caller), ("--path", self.path), ("--header", self.headers or None))
        return [option for option, value in given if value is not None]


def check_usage(request: FaultRequest) -> None:
    """Raises UsageError for options that do not go together."""
    given = [*request.alone, *request.for_requests]
    if not given:
        raise UsageError(
            "a fault needs --abort STATUS, --delay DURATION, --pause, --kill or --partition A B",
            f"devmesh fault inject {request.target} --abort 503",
        )
    if request.alone and len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} do not go together: {given[0]} is a whole fault", "inject them one after the other: each gets an id"
        )
    if request.alone and request.choosing:
        raise UsageError(
            f"{request.choosing[0]} chooses requests, and {given[0]} knows of none: it is for all of {request.target}",
            f"leave {', '.join(request.choosing)} out, or use --abort or --delay",
        )
    if request.kill and request.lifetime is not None:
        raise UsageError(
            "--kill happens once, when it is injected: there is nothing that --for could end",
            f"devmesh stop {request.target} keeps it down, --pause --for holds it",
        )
    if request.abort is not None and not 200 <= request.abort <= 599:
        raise UsageError(f"--abort {request.abort} is no HTTP status from 200 to 599", "--abort 503")
    if request.percent is not None and not 0 < request.percent <= 100:
        raise UsageError(f"--percent {request.percent:g} is not between 0 and 100", "--percent 50")


def check_names(request: FaultRequest, topology: Topology) -> list[Workload]:
    """The target's workloads. Raises DevmeshError for a name that nobody has, or that this fault cannot be for."""
    services = {one.service for one in topology.workloads if not one.gateway}
    everybody = {name for one in topology.workloads for name in (one.service, one.name)}
    apps = {name for one in topology.workloads if not one.gateway for name in (one.service, one.name)}
    _known("target", request.target, everybody if request.partition else apps if request.alone else services)
    if request.caller is not None:
        _known("caller", request.caller, everybody)
    targets = selected(topology, request.target)
    if request.partition is not None:
        _known("target", request.partition, everybody)
        both = [one.name for one in selected(topology, request.partition) if one in targets]
        if both:
            raise DevmeshError(
                f"a partition is between two sides, and {both[0]} is on both of {request.target} and {request.partition}",
                f"devmesh fault inject --partition {' '.join(sorted(services)[:2])}",
            )
    return targets


def selected(topology: Topology, name: str) -> list[Workload]:
    """The workloads that a fault's `target` or `partition` means: a service's, or the one of that name."""
    return [one for one in topology.workloads if name in (one.service, one.name)]


def called(fault: Mapping[str, Any]) -> set[str]:
    """The names by which a fault is cleared: its id, and what it is at."""
    return {fault["id"], fault["target"], *([fault["partition"]] if fault.get("partition") else [])}


def fault_state(spec: Mapping[str, Any], apps: Mapping[str, bool]) -> str:
    """`done` for what happens once, else `in force`. `apps` are the target's, and whether each stands still: one that has just started is yet to."""
    if spec.get("kill"):
        return "done"
    moving = sorted(name for name, still in apps.items() if not still) if spec.get("pause") else []
    return f"not yet at {', '.join(moving)}" if moving else "in force"


def _known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        raise DevmeshError(
            f"unknown {what} {name!r}; there are {', '.join(sorted(names))}", f"did you mean {close[0]}?" if close else "devmesh status"
        )


def fault_document(identity: str, request: FaultRequest, now: float, killed: int = 0) -> dict[str, Any]:
    """`now` is seconds since the epoch; `killed` says how many apps a kill has ended."""
    percent = 100.0 if request.percent is None else request.percent
    spec: dict[str, Any] = {"id": identity, "target": request.target}
    if request.abort is not None:
        spec["abort"] = {"httpStatus": request.abort, "percentage": percent}
    if request.delay is not None:
        spec["delay"] = {"fixedDelay": request.delay, "percentage": percent}
    if request.partition is not None:
        spec["partition"] = request.partition
    if request.pause:
        spec["pause"] = True
    if request.kill:
        spec |= {"kill": True, "hits": killed}
    if request.caller:
        spec["from"] = request.caller
    if request.path:
        spec["path"] = request.path
    if request.headers:
        spec["headers"] = dict(request.headers)
    if request.lifetime is not None:
        spec["until"] = now + request.lifetime
    return {"apiVersion": f"{DEVMESH}/v1", "kind": FAULT_KIND, "metadata": {"name": identity, "namespace": "default"}, "spec": spec}
