"""Which virtual host, route and cluster a request goes to: pure decisions in Envoy's order.

Follows Envoy's "HTTP route matching": domains are tried exact, `*.suffix` longest first, `prefix.*` longest first, `*`; routes in order.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from devmesh.sidecar.config import HeaderMatcher, RedirectAction, Route, RouteAction, RouteMatch, RouteTable, VirtualHost, WeightedCluster
from devmesh.sidecar.message import Headers, RequestHead, get_header


def select_virtual_host(table: RouteTable, authority: bytes) -> VirtualHost | None:
    host = authority.lower()
    if table.ignore_port_in_host:
        host = without_port(host)
    found = table.exact.get(host)
    if found is not None:
        return found
    for domain, candidate in table.wildcards:
        if domain.startswith(b"*"):
            if len(host) >= len(domain) and host.endswith(domain[1:]):
                return candidate
        elif len(host) >= len(domain) and host.startswith(domain[:-1]):
            return candidate
    return table.default


def without_port(host: bytes) -> bytes:
    """`reviews:9080` -> `reviews`, `[::1]:80` -> `[::1]`."""
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() and (not name.count(b":") or name.endswith(b"]")) else host


def select_route(host: VirtualHost, head: RequestHead, chance: float) -> Route | None:
    """The first route whose match holds. `chance` in [0, 1) decides runtime fractions."""
    path, _, query = head.target.partition(b"?")
    for route in host.routes:
        if matches(route.match, head, path, query, chance):
            return route
    return None


def matches(match: RouteMatch, head: RequestHead, path: bytes, query: bytes, chance: float) -> bool:
    if not match.path.matches(path):
        return False
    if match.runtime_fraction is not None and chance >= match.runtime_fraction:
        return False
    if match.headers and not all(header_matches(matcher, head) for matcher in match.headers):
        return False
    return not match.query or _query_matches(match.query, query)


def header_matches(matcher: HeaderMatcher, head: RequestHead) -> bool:
    return matcher.matches(header_value(head, matcher.name))


def header_value(head: RequestHead, name: bytes) -> bytes | None:
    """A header's values joined by commas (RFC 9110 section 5.3), pseudo-headers included."""
    if name[:1] == b":":
        return {b":method": head.method, b":authority": head.authority, b":path": head.target, b":scheme": head.scheme}.get(name)
    values = [value for key, value in head.headers if key == name]
    return b",".join(values) if values else None


def _query_matches(matchers: tuple[HeaderMatcher, ...], query: bytes) -> bool:
    values: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        values.setdefault(unquote_to_bytes(key), unquote_to_bytes(value))
    return all(matcher.matches(values.get(matcher.name)) for matcher in matchers)


def select_cluster(action: RouteAction, chance: float) -> WeightedCluster | None:
    """The weighted cluster at `chance` in [0, 1); None when every weight is 0."""
    if len(action.clusters) == 1:
        return action.clusters[0]
    mark = chance * action.total_weight
    for cluster in action.clusters:
        mark -= cluster.weight
        if mark < 0:
            return cluster
    return None


def rewrite_target(action: RouteAction, route: Route, target: bytes) -> bytes:
    """prefix_rewrite and regex_rewrite of RouteAction; the query stays as it is."""
    path, mark, query = target.partition(b"?")
    if action.prefix_rewrite is not None:
        path = action.prefix_rewrite + path[len(route.match.path.prefix or path) :]
    elif action.regex_rewrite is not None:
        pattern, substitution = action.regex_rewrite
        path = pattern.sub(substitution, path)  # type: ignore[attr-defined] # an RE2 pattern, kept opaque in config
    return path + mark + query


def redirect_location(action: RedirectAction, route: Route, head: RequestHead) -> bytes:
    """The Location header of a RedirectAction (route_components.proto RedirectAction)."""
    scheme = action.scheme or (b"https" if action.https else head.scheme)
    host = action.host if action.host is not None else head.authority
    changed = action.scheme is not None or action.https
    if action.port is not None:
        default = {b"http": 80, b"https": 443}.get(scheme)
        host = without_port(host) + (b"" if action.port == default else b":%d" % action.port)
    elif changed and action.host is None:
        host = without_port(host) if host.endswith((b":80", b":443")) else host
    path, mark, query = head.target.partition(b"?")
    if action.path is not None:
        path, own_mark, own_query = action.path.partition(b"?")
        mark, query = (own_mark, own_query) if own_mark else (mark, query)
    elif action.prefix is not None:
        path = action.prefix + path[len(route.match.path.prefix or b"") :]
    if action.strip_query:
        mark = query = b""
    return scheme + b"://" + host + path + mark + query


def cookie(headers: Headers, name: bytes) -> bytes | None:
    for pair in (get_header(headers, b"cookie") or b"").split(b";"):
        key, _, value = pair.strip().partition(b"=")
        if key == name:
            return value.strip(b'"')
    return None
