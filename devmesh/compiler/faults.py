"""devmesh `Fault`: what `fault inject` writes, compiled at the callee so that callers' retries and timeouts are exercised.

Istio's own `fault:` sits at the caller before the router and never meets retries; this one is an inbound route in front of the default one.
A partition is compiled at both its sides, each of which then makes no connection to the other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from devmesh.compiler.shared import TYPE, Json, million
from devmesh.compiler.world import World
from devmesh.config.durations import format_duration
from devmesh.config.model import Resource
from devmesh.config.topology_types import Service, Workload


def fault_routes(world: World, service: Service, default: Json) -> list[Json]:
    """Aborts and delays; the other kinds are no business of a route's."""
    aimed = [fault for fault in world.faults() if _spec(fault).get("target") == service.name]
    return [_route(world, fault, default) for fault in aimed if _spec(fault).keys() & {"abort", "delay"}]


def cut_off(world: World, proxy: Workload) -> dict[str, str]:
    """The addresses that partitions keep `proxy` from, each with its fault's id. The other side is kept from `proxy` by its own list."""
    found: dict[str, str] = {}
    for fault in world.faults():
        spec = _spec(fault)
        sides = [str(spec.get("target")), str(spec.get("partition"))] if spec.get("partition") else []
        for ours, theirs in (sides, reversed(sides)) if sides else ():
            if ours in (proxy.service, proxy.name):
                for other in (one for one in world.topology.workloads if theirs in (one.service, one.name)):
                    for address in (other.ip, *other.addresses.values()):
                        found.setdefault(address, str(spec.get("id", fault.key.name)))
    return found


def _spec(fault: Resource) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = fault.raw.get("spec", {})
    return spec


def _route(world: World, fault: Resource, default: Json) -> Json:
    spec = _spec(fault)
    route = copy.deepcopy(default)
    identity = str(spec.get("id", fault.key.name))
    route["name"] = f"fault/{identity}"
    route["match"] = _match(world, spec)
    route["metadata"] = {"filter_metadata": {"devmesh": {"fault": identity}}}
    route["typed_per_filter_config"] = {"envoy.filters.http.fault": _fault(spec)}
    return route


def _match(world: World, spec: Mapping[str, Any]) -> Json:
    path = spec.get("path")
    match: Json = {"prefix": "/"}
    if path:
        match = {"prefix": path[:-1]} if path.endswith("*") else {"path": path}
    headers = [{"name": name, "string_match": {"exact": value}} for name, value in (spec.get("headers") or {}).items()]
    if spec.get("from"):
        headers.append(_caller(world, str(spec["from"])))
    if headers:
        match["headers"] = headers
    return match


def _caller(world: World, name: str) -> Json:
    """A caller is known by the identity that its certificate proves (x-forwarded-client-cert, set by this proxy itself)."""
    identities = sorted({w.spiffe_id for w in world.topology.workloads if name in (w.service, w.name)})
    pattern = "|".join(identity.replace(".", "\\.") for identity in identities) or "nobody"
    return {"name": "x-forwarded-client-cert", "string_match": {"safe_regex": {"regex": f".*URI=({pattern})(;.*|,.*)?"}}}


def _fault(spec: Mapping[str, Any]) -> Json:
    out: Json = {"@type": f"{TYPE}envoy.extensions.filters.http.fault.v3.HTTPFault"}
    delay, abort = spec.get("delay"), spec.get("abort")
    if delay:
        out["delay"] = {
            "fixed_delay": format_duration(float(delay["fixedDelay"])),
            "percentage": million(float(delay.get("percentage", 100))),
        }
    if abort:
        out["abort"] = {"http_status": int(abort["httpStatus"]), "percentage": million(float(abort.get("percentage", 100)))}
    return out
