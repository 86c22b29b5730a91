"""What else than its own name a compose file lets an app call a service of the mesh: container names, host names, network aliases, links.

Docker's resolver answers them with addresses of containers, which is a way past the mesh. So each name is a further name of one service of
the mesh, or none of the mesh's at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from devmesh.config.compose import ComposeService, Problems
from devmesh.config.names import service_fqdn
from devmesh.config.topology_types import Alias

ServiceId = tuple[str, str]
"""(name, namespace) of a service of the mesh."""
NOBODYS = ("localhost",)


@dataclass(frozen=True, slots=True)
class Member:
    """A compose service and the service of the mesh that it is, or is a version of. One without a port has no address in the mesh, and calls others."""

    compose: ComposeService
    service: ServiceId
    workloads: tuple[str, ...]
    has_port: bool = True


@dataclass(frozen=True, slots=True)
class FurtherNames:
    """`versions` are names of one version of a service among several: Istio has no such name, so nobody may call it."""

    aliases: Mapping[ServiceId, tuple[Alias, ...]] = field(default_factory=dict)
    versions: tuple[Alias, ...] = ()


def further_names(members: Iterable[Member], problems: Problems) -> FurtherNames:
    """`members` are all who may call."""
    callers = list(members)
    known = [one for one in callers if one.has_port]
    own = {form: one.service for one in known for form in host_forms(*one.service)}
    aliases: dict[ServiceId, list[Alias]] = defaultdict(list)
    versions: list[Alias] = []
    for alias, claimers in (*_claims(known), *_links(known, callers)):
        path = f"{claimers[0].compose.path}.{_field(claimers[0].compose, alias.name)}"
        services = list(dict.fromkeys(one.service for one in claimers))
        if len(services) > 1:
            names = " and ".join(one.compose.name for one in claimers)
            problems.add(path, f'"{alias.name}" would name several services of the mesh: {names}', _one_service_hint(claimers))
        elif own.get(alias.name) == services[0]:
            continue
        elif alias.name in own:
            problems.add(
                path,
                f'"{alias.name}" is given to {claimers[0].compose.name}, and is a service of the mesh',
                "take one of the two names away",
            )
        elif _is_whole(claimers, alias, known):
            aliases[services[0]].append(alias)
        else:
            versions.append(alias)
    _refuse_two_meanings(callers, aliases, problems)
    return FurtherNames({service: tuple(found) for service, found in aliases.items()}, tuple(versions))


def host_forms(name: str, namespace: str) -> tuple[str, ...]:
    return name, f"{name}.{namespace}", f"{name}.{namespace}.svc", service_fqdn(name, namespace)


def _refuse_two_meanings(callers: list[Member], aliases: Mapping[ServiceId, list[Alias]], problems: Problems) -> None:
    """A name may mean one service on one network and another on the next: not to somebody who is on both."""
    for caller in callers:
        meanings: dict[str, ServiceId] = {}
        for service, found in aliases.items():
            for alias in found:
                known = bool(set(alias.networks) & caller.compose.networks.keys()) or bool(set(alias.callers) & set(caller.workloads))
                if known and meanings.setdefault(alias.name, service) != service:
                    both = f"{meanings[alias.name][0]} and {service[0]}"
                    problems.add(f"{caller.compose.path}.networks", f'"{alias.name}" means {both} to {caller.compose.name}', "rename one")


def _claims(members: list[Member]) -> Iterator[tuple[Alias, list[Member]]]:
    """Each name with whom Docker's resolver would mean; networks on which it means the same are one alias."""
    found: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for one in members:
        for network, given in one.compose.networks.items():
            for name in _names(one.compose, given):
                if one not in found[name, network]:
                    found[name, network].append(one)
    merged: dict[tuple[str, tuple[str, ...]], tuple[list[str], list[Member]]] = {}
    for (name, network), claimers in found.items():
        key = (name, tuple(one.compose.name for one in claimers))
        merged.setdefault(key, ([], claimers))[0].append(network)
    for (name, _), (networks, claimers) in merged.items():
        yield Alias(name, tuple(networks)), claimers


def _names(compose: ComposeService, given: Iterable[str]) -> Iterator[str]:
    for name in (compose.name, compose.container_name, compose.hostname, *given):
        if name and name.lower() not in NOBODYS:
            yield name.lower()


def _links(members: list[Member], callers: list[Member]) -> Iterator[tuple[Alias, list[Member]]]:
    by_name = {one.compose.name: one for one in members}
    for caller in callers:
        for target, name in caller.compose.links:
            if target in by_name:
                yield Alias(name.lower(), (), caller.workloads), [by_name[target]]


def _is_whole(claimers: list[Member], alias: Alias, members: list[Member]) -> bool:
    """Whether the name means all of its service that is there."""
    named = {one.compose.name for one in claimers}
    there = (
        one.compose.name
        for one in members
        if one.service == claimers[0].service and (not alias.networks or set(alias.networks) & one.compose.networks.keys())
    )
    return named >= set(there)


def _field(compose: ComposeService, name: str) -> str:
    if (compose.container_name or "").lower() == name:
        return "container_name"
    if (compose.hostname or "").lower() == name:
        return "hostname"
    return next((f"networks.{network}" for network, given in compose.networks.items() if name in map(str.lower, given)), "")


def _one_service_hint(claimers: list[Member]) -> str:
    return f"if they are versions of one service, give each the label app: {claimers[0].service[0]} and a label version: of its own"
