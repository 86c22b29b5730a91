"""Which virtual host, route and cluster a request goes to: pure decisions in Envoy's order.

Follows Envoy's "HTTP route matching": domains are tried exact, `*.suffix` longest first, `prefix.*` longest first, `*`; routes in order.
"""

from __future__ import annotations

from typing import Final

from devmesh.sidecar.config import HeaderMatcher, RedirectAction, Route, RouteAction, RouteMatch, RouteTable, VirtualHost, WeightedCluster
from devmesh.sidecar.message import Headers, RequestHead, get_header

DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


def select_virtual_host(table: RouteTable, authority: bytes) -> VirtualHost | None:
    host = authority.lower()
    if table.ignore_port_in_host:
        host = _before_port(host)
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


def _before_port(host: bytes) -> bytes:
    """Envoy takes what stands behind the last colon for a port, whatever it is (HeaderUtility::getPortStart)."""
    colon = host.rfind(b":")
    return host[:colon] if colon > host.rfind(b"]") else host


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
    """Envoy 1.40 asks for one value that matches (an inverted matcher: for none that does), and never joins them."""
    name = matcher.name
    if name[:1] == b":" or name == b"host":
        return matcher.matches(pseudo_header(head, name))
    values = [value for key, value in head.headers if key == name]
    if len(values) > 1:
        return (all if matcher.inverted else any)(matcher.matches(value) for value in values)
    return matcher.matches(values[0] if values else None)


def pseudo_header(head: RequestHead, name: bytes) -> bytes | None:
    pseudo = {b":method": head.method, b":authority": head.authority, b":path": head.target, b":scheme": head.scheme}
    return pseudo.get(b":authority" if name == b"host" else name)


def _query_matches(matchers: tuple[HeaderMatcher, ...], query: bytes) -> bool:
    """Names and values as they are written: Envoy does not decode them. Of several the first counts."""
    return all(matcher.matches(query_value(query, matcher.name)) for matcher in matchers)


def query_value(query: bytes, name: bytes) -> bytes | None:
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return None


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
        matched = route.match.path.prefix
        path = action.prefix_rewrite + path[len(path if matched is None else matched) :]
    elif action.regex_rewrite is not None:
        path = action.regex_rewrite(path)
    return path + mark + query


def needs_tls(host: VirtualHost, head: RequestHead) -> bool:
    """require_tls, answered by `TLS_REDIRECT`; a front proxy that ended TLS says so in x-forwarded-proto."""
    return host.require_tls and (get_header(head.headers, b"x-forwarded-proto") or head.scheme) != b"https"


TLS_REDIRECT: Final = RedirectAction(status=301, https=True)
NOWHERE_ELSE: Final = RedirectAction(status=201)


def redirect_location(action: RedirectAction, route: Route | None, head: RequestHead) -> bytes:
    """The Location header of a RedirectAction (route_components.proto RedirectAction)."""
    scheme = action.scheme or (b"https" if action.https else head.scheme)
    path, mark, query = head.target.partition(b"?")
    if action.strip_query:
        mark = query = b""
    if action.path is not None:
        path = action.path
        if b"?" in path:  # its own query replaces the request's
            mark = query = b""
    elif action.prefix is not None:
        matched = route.match.path.prefix if route is not None else None
        path = action.prefix + path[len(path if matched is None else matched) :]
    elif action.regex is not None:
        path = action.regex(path) or path  # a new path that is empty is none
    slash = b"" if path.startswith(b"/") else b"/"
    return scheme + b"://" + _redirect_host(action, head, scheme) + slash + path + mark + query


def _redirect_host(action: RedirectAction, head: RequestHead, scheme: bytes) -> bytes:
    """A port is dropped when it is replaced, or when it was the default of the scheme that is left: x-forwarded-proto's."""
    if action.host is not None:
        host = action.host
    elif action.port is not None or _leaves_default_port(head, scheme):
        host = _before_port(head.authority)
    else:
        host = head.authority
    return host if action.port is None else host + b":%d" % action.port


def _leaves_default_port(head: RequestHead, scheme: bytes) -> bool:
    spoken = get_header(head.headers, b"x-forwarded-proto") or head.scheme
    return scheme != spoken and spoken in DEFAULT_PORTS and head.authority.endswith(DEFAULT_PORTS[spoken])


def cookie(headers: Headers, name: bytes) -> bytes | None:
    for header, line in headers:
        if header != b"cookie":
            continue
        for pair in line.split(b";"):
            key, mark, value = pair.strip().partition(b"=")
            if mark and key == name:
                return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value
    return None
