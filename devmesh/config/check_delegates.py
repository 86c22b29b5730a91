"""What of a delegation comes to nothing. istiod leaves such routes out, and says so in its log only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from devmesh.config.checks import Checker
from devmesh.config.delegates import exported, in_full, merged
from devmesh.config.istio_networking import HTTPRoute, VirtualService
from devmesh.config.model import Resource
from devmesh.config.references import NOT_FOUND
from devmesh.config.schema import suggest

Services = Mapping[tuple[str, str], Resource]


def check_delegates(check: Checker, resources: Iterable[Resource]) -> None:
    spec = check.resource.spec
    if not isinstance(spec, VirtualService):
        return
    services = {(one.key.namespace, one.key.name): one for one in resources if isinstance(one.spec, VirtualService)}
    if not spec.hosts and not any(check.resource.key == one.key for one in _taken(services)):
        check.no_effect("spec.http", "it has no hosts, and no VirtualService delegates to it")
    for index, http in enumerate(spec.http if spec.hosts else ()):
        if http.delegate is not None:
            _check(check, f"spec.http[{index}].delegate", http, services)


def _taken(services: Services) -> Iterator[Resource]:
    for root in services.values():
        for http in root.spec.http if isinstance(root.spec, VirtualService) and root.spec.hosts else ():
            if (found := services.get(_named(root, http))) is not None:
                yield found


def _named(root: Resource, http: HTTPRoute) -> tuple[str, str]:
    return (http.delegate.namespace or root.key.namespace, http.delegate.name) if http.delegate is not None else ("", "")


def _check(check: Checker, path: str, http: HTTPRoute, services: Services) -> None:
    root, name = check.resource, _named(check.resource, http)
    found = services.get(name)
    if found is None or not isinstance(found.spec, VirtualService):
        check.add(
            "error", NOT_FOUND, path, f'Referenced delegate not found: "{"/".join(name)}"', suggest(name[1], [one for _, one in services])
        )
    elif found.spec.hosts:
        hint = f"remove hosts: from {found.key} ({found.position('spec.hosts')})"
        check.add("error", NOT_FOUND, path, f'Referenced delegate "{"/".join(name)}" has hosts, so it is nobody\'s delegate', hint)
    elif not exported(found, found.spec, root.key.namespace):
        check.no_effect(path, f"{found.key} is not exported to namespace {root.key.namespace}, so the route is left out")
    else:
        full = in_full(http, root.key.namespace)
        for index, one in enumerate(found.spec.http):
            if merged(full, in_full(one, found.key.namespace)) is None:
                place = found.position(f"spec.http[{index}]")
                check.no_effect(path, f"this match excludes what a route of {found.key} is for ({place}), so that one is left out")
