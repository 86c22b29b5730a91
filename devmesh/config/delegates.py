"""Routes that a VirtualService takes from another one (`delegate`): istiod's mergeVirtualServices and MergeHTTPRoutes.

A delegate has no hosts. What it says short, it says in its own namespace; what root and delegate say of one request must not contradict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from devmesh.config.istio_networking import Destination, HTTPMatchRequest, HTTPRoute, StringMatch, VirtualService
from devmesh.config.model import Resource, SourcePosition
from devmesh.config.names import expand_host

EVERYWHERE, HERE, MESH = "*", ".", "mesh"
# What a delegate's route has of the root's unless it says so itself.
INHERITED = (
    "rewrite", "direct_response", "timeout", "retries", "fault", "mirror", "mirror_percent", "mirror_percentage", "cors_policy", "mirrors", "headers",
)  # fmt: skip
INHERITED_MATCH = ("uri", "scheme", "method", "authority", "port", "source_namespace", "gateways", "stat_prefix")
COMBINED_MATCH = ("headers", "without_headers", "query_params", "source_labels")


class Found(NamedTuple):
    """A route, and where it is written."""

    route: HTTPRoute
    position: SourcePosition


def with_delegates(root: Resource, spec: VirtualService, delegates: Mapping[tuple[str, str], Resource]) -> list[Found]:
    """The routes of a VirtualService with hosts. A delegate that is not there, or not for it, leaves its route out and no other."""
    found: list[Found] = []
    for index, http in enumerate(spec.http):
        if http.delegate is None:
            found.append(Found(http, root.position(f"spec.http[{index}]")))
            continue
        resource = delegates.get((http.delegate.namespace or root.key.namespace, http.delegate.name))
        if resource is not None and isinstance(resource.spec, VirtualService) and exported(resource, resource.spec, root.key.namespace):
            found += taken(in_full(http, root.key.namespace), resource, resource.spec)
    return found


def exported(resource: Resource, spec: VirtualService, namespace: str) -> bool:
    names = {resource.key.namespace if one == HERE else one for one in spec.export_to}
    return not names or bool(names & {EVERYWHERE, namespace})


def taken(root: HTTPRoute, resource: Resource, spec: VirtualService) -> Iterator[Found]:
    for index, one in enumerate(spec.http):
        route = merged(root, in_full(one, resource.key.namespace))
        if route is not None:
            yield Found(route, resource.position(f"spec.http[{index}]"))


def merged(root: HTTPRoute, own: HTTPRoute) -> HTTPRoute | None:
    """None when no request could meet both."""
    match = merged_matches(root.match, own.match)
    if match is None:
        return None
    inherited = {name: getattr(root, name) for name in INHERITED if not given(getattr(own, name))}
    return own.model_copy(update={**inherited, "match": match, "name": _named(root.name, own.name)})


def given(value: object) -> bool:
    """Whether a field is set: a 0 is, an empty list is not."""
    return value is not None and value != ()


def _named(root: str, own: str) -> str:
    return f"{root}-{own}" if root and own else root or own


def merged_matches(root: Sequence[HTTPMatchRequest], own: Sequence[HTTPMatchRequest]) -> tuple[HTTPMatchRequest, ...] | None:
    """Every match of the delegate within every one of the root's that it does not contradict; None when one fits nowhere."""
    if not root or not own:
        return tuple(own or root)
    out: list[HTTPMatchRequest] = []
    for leaf in own:
        fitting = [_merged_match(one, leaf) for one in root if not contradicts(one, leaf)]
        if not fitting:
            return None
        out += fitting
    return tuple(out)


def _merged_match(root: HTTPMatchRequest, leaf: HTTPMatchRequest) -> HTTPMatchRequest:
    update = {name: getattr(root, name) for name in INHERITED_MATCH if not getattr(leaf, name)}
    update |= {name: {**getattr(root, name), **getattr(leaf, name)} for name in COMBINED_MATCH}
    return leaf.model_copy(update={**update, "name": _named(root.name, leaf.name)})


def contradicts(root: HTTPMatchRequest, leaf: HTTPMatchRequest) -> bool:
    """istiod's hasConflict."""
    if any(_texts_contradict(getattr(root, name), getattr(leaf, name)) for name in ("uri", "scheme", "method", "authority")):
        return True
    for name in ("headers", "without_headers", "query_params"):
        roots: Mapping[str, StringMatch] = getattr(root, name)
        if any(_texts_contradict(roots.get(key), text) for key, text in getattr(leaf, name).items()):
            return True
    if root.ignore_uri_case != leaf.ignore_uri_case or (root.port and leaf.port and root.port != leaf.port):
        return True
    if root.source_namespace and leaf.source_namespace != root.source_namespace:
        return True
    if any(root.source_labels.get(key, value) != value for key, value in leaf.source_labels.items()):
        return True
    gateways = bool(root.gateways and leaf.gateways)
    return gateways and (len(root.gateways) < len(leaf.gateways) or not set(leaf.gateways) <= set(root.gateways))


def _texts_contradict(root: StringMatch | None, leaf: StringMatch | None) -> bool:
    """Whether what the leaf takes is not all taken by the root, as far as istiod can tell: never beside a regex."""
    if root is None or leaf is None:
        return False
    if root.exact and not root.regex and not leaf.regex:
        return bool(leaf.prefix) or leaf.exact != root.exact
    text = leaf.prefix or leaf.exact
    if root.prefix and text and not root.regex and not leaf.regex:
        return not text.startswith(root.prefix)
    return True


def in_full(route: HTTPRoute, namespace: str) -> HTTPRoute:
    """Hosts and gateways as any namespace would write them."""
    update = {
        "match": tuple(
            one.model_copy(update={"gateways": tuple(_gateway_in_full(name, namespace) for name in one.gateways)}) for one in route.match
        ),
        "route": tuple(one.model_copy(update={"destination": _in_full(one.destination, namespace)}) for one in route.route),
        "mirror": _in_full(route.mirror, namespace),
        "mirrors": tuple(one.model_copy(update={"destination": _in_full(one.destination, namespace)}) for one in route.mirrors),
    }
    return route.model_copy(update=update)


def _gateway_in_full(name: str, namespace: str) -> str:
    return name if name == MESH or "/" in name else f"{namespace}/{name}"


def _in_full(destination: Destination | None, namespace: str) -> Destination | None:
    return destination.model_copy(update={"host": expand_host(destination.host, namespace)}) if destination is not None else None
