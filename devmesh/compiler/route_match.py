"""HTTPMatchRequest -> RouteMatch."""

from __future__ import annotations

from devmesh.compiler.shared import Json
from devmesh.config.istio_networking import HTTPMatchRequest, StringMatch


def string_matcher(match: StringMatch) -> Json:
    if match.exact is not None:
        return {"exact": match.exact}
    if match.prefix is not None:
        return {"prefix": match.prefix}
    return {"safe_regex": {"regex": match.regex}} if match.regex is not None else {}


def catch_all(match: HTTPMatchRequest | None) -> bool:
    """Whether istiod takes it for one behind which no other route is reached (IsCatchAllRoute)."""
    if match is None:
        return True
    if match.uri is not None and match.uri.prefix != "/" and match.uri.regex != ".*":
        return False
    return not (match.headers or match.without_headers or match.query_params or match.method or match.authority or match.scheme)


def translate(match: HTTPMatchRequest | None) -> Json:
    if match is None:
        return {"prefix": "/"}
    out: Json = _path(match.uri) if match.uri is not None else {"prefix": "/"}
    headers = [header(name, value) for name, value in sorted(match.headers.items())]
    headers += [header(name, value, inverted=True) for name, value in sorted(match.without_headers.items())]
    headers.sort(key=lambda one: str(one["name"]))
    for name, value in ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme)):
        if value is not None:
            headers.append(header(name, value))
    if headers:
        out["headers"] = headers
    out["case_sensitive"] = not match.ignore_uri_case
    if match.query_params:
        out["query_parameters"] = [_query(name, value) for name, value in sorted(match.query_params.items())]
    return out


def _path(uri: StringMatch) -> Json:
    if uri.exact is not None:
        return {"path": uri.exact}
    if uri.prefix is not None:
        return {"prefix": uri.prefix}
    return {"safe_regex": {"regex": uri.regex}}


def header(name: str, match: StringMatch, *, inverted: bool = False) -> Json:
    """A header match; an empty StringMatch asks for presence."""
    out: Json = {"name": name}
    if _empty(match):
        out["present_match"] = True
    else:
        out["string_match"] = string_matcher(match)
    if inverted:
        out["invert_match"] = True
        if "string_match" in out:
            out["treat_missing_header_as_empty"] = True
    return out


def _empty(match: StringMatch) -> bool:
    return (match.exact is None and match.prefix is None and match.regex is None) or match.regex == "*"


def _query(name: str, match: StringMatch) -> Json:
    if _empty(match):
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_matcher(match)}
