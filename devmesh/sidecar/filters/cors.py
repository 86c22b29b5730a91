"""envoy.filters.http.cors: preflights answered, response headers added (config/filter/http/cors/v3)."""

from __future__ import annotations

from devmesh.sidecar.config import CorsPolicy
from devmesh.sidecar.message import Headers, RequestHead, get_header, set_header


def allowed_origin(policy: CorsPolicy | None, head: RequestHead) -> bytes | None:
    """The request's Origin when the policy allows it; a matcher that would take `*` takes every origin."""
    origin = get_header(head.headers, b"origin")
    if policy is None or not origin:
        return None
    return origin if any(matches(b"*") or matches(origin) for matches in policy.allow_origin) else None


def preflight(policy: CorsPolicy | None, head: RequestHead) -> Headers | None:
    """The headers of the 200 that answers a preflight; None when the request goes on.

    Observed on Envoy 1.40: where an unmatched preflight is not forwarded, its answer lacks the origin and nothing else; `*` alone, as methods or
    headers, is what was asked for, whether credentials are allowed or not.
    """
    method = get_header(head.headers, b"access-control-request-method")
    if policy is None or head.method != b"OPTIONS" or not method or not get_header(head.headers, b"origin"):
        return None
    origin = allowed_origin(policy, head)
    if origin is None and policy.forward_not_matching_preflights:
        return None
    headers: Headers = [(b"access-control-allow-origin", origin)] if origin is not None else []
    if policy.allow_credentials:
        headers.append((b"access-control-allow-credentials", b"true"))
    asked = get_header(head.headers, b"access-control-request-headers") or b""
    for name, value, of_star in (
        (b"access-control-allow-methods", policy.allow_methods, method),
        (b"access-control-allow-headers", policy.allow_headers, asked),
        (b"access-control-max-age", policy.max_age, policy.max_age),
    ):
        if value:
            headers.append((name, of_star if value == b"*" else value))
    return headers


def on_response(policy: CorsPolicy | None, origin: bytes | None, headers: Headers) -> None:
    """Add the response headers of an allowed cross-origin request."""
    if policy is None or origin is None:
        return
    set_header(headers, b"access-control-allow-origin", origin)
    if policy.allow_credentials:
        set_header(headers, b"access-control-allow-credentials", b"true")
    if policy.expose_headers:
        set_header(headers, b"access-control-expose-headers", policy.expose_headers)
