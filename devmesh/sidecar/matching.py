"""StringMatcher, HeaderMatcher and QueryParameterMatcher of Envoy (type/matcher/v3/string.proto, route_components.proto) as predicates over bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import re2

from devmesh.sidecar.config import ConfigError, HeaderMatcher, PathMatcher, Predicate, RouteMatch
from devmesh.sidecar.config_common import refuse

REFERENCE = re.compile(rb"\\([0-9\\])")
INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
UNREAD_MATCHES = ("grpc", "tls_context", "dynamic_metadata", "filter_state", "cookies", "connect_matcher", "path_match_policy")
_QUIET = re2.Options()
_QUIET.log_errors = False  # the mistake is raised, and must not be printed as well


# The two that nearly every route has are functions with types, which compiled code calls without asking what their argument is.
def exactly(text: bytes, *, fold: bool = False) -> Predicate:
    if fold:
        lowered = text.lower()
        return lambda value: value is not None and value.lower() == lowered

    def same(value: bytes | None) -> bool:
        return value is not None and value == text

    return same


def starts_with(text: bytes, *, fold: bool = False) -> Predicate:
    if fold:
        lowered = text.lower()
        return lambda value: value is not None and value.lower().startswith(lowered)

    def starts(value: bytes | None) -> bool:
        return value is not None and value.startswith(text)

    return starts


def ends_with(text: bytes, *, fold: bool = False) -> Predicate:
    if fold:
        lowered = text.lower()
        return lambda value: value is not None and value.lower().endswith(lowered)
    return lambda value: value is not None and value.endswith(text)


def contains(text: bytes, *, fold: bool = False) -> Predicate:
    if fold:
        lowered = text.lower()
        return lambda value: value is not None and lowered in value.lower()
    return lambda value: value is not None and text in value


def full_match(owner: str, regex: str) -> Predicate:
    """RE2 over the whole value, as Envoy's safe_regex. Raises ConfigError for what RE2 refuses."""
    pattern = compile_regex(owner, regex)
    return lambda value: value is not None and pattern.fullmatch(value) is not None


def compile_regex(owner: str, regex: str) -> Any:
    try:
        return re2.compile(regex.encode(), _QUIET)
    except re2.error as error:
        raise ConfigError(owner, f"regex {regex!r} is not RE2: {error}") from error


def string_predicate(owner: str, matcher: Mapping[str, Any]) -> Predicate:
    """A StringMatcher."""
    fold = bool(matcher.get("ignore_case"))
    for key, make in (("exact", exactly), ("prefix", starts_with), ("suffix", ends_with), ("contains", contains)):
        if key in matcher:
            return make(matcher[key].encode(), fold=fold)
    if "safe_regex" in matcher:
        return full_match(owner, matcher["safe_regex"]["regex"])
    raise ConfigError(owner, f"string matcher {sorted(matcher)} is not supported")


def regex_rewrite(owner: str, regex: str, text: str) -> Callable[[bytes], bytes]:
    """RE2::GlobalReplace: every match that does not overlap, an empty one only where the match before did not end."""
    pattern = compile_regex(owner, regex)
    expand = substitution(owner, text, pattern.groups)

    def rewrite(path: bytes) -> bytes:
        out, end = [], -1
        kept = 0
        for match in pattern.finditer(path):
            if match.start() == match.end() == end:
                continue
            out += [path[kept : match.start()], expand(match)]
            kept = end = match.end()
        return b"".join([*out, path[kept:]])

    return rewrite


def substitution(owner: str, text: str, groups: int) -> Callable[[Any], bytes]:
    r"""An RE2 rewrite string: `\0` is the match, `\1` to `\9` its groups, `\\` a backslash (RE2::Rewrite)."""
    rewrite = text.encode()
    for found in REFERENCE.findall(rewrite):
        if found != b"\\" and int(found) > groups:
            raise ConfigError(owner, f"substitution {text!r} refers to a group that the regex does not have")
    return lambda match: REFERENCE.sub(lambda found: b"\\" if found[1] == b"\\" else match.group(int(found[1])) or b"", rewrite)


def _range(matcher: Mapping[str, Any]) -> Predicate:
    start, end = int(matcher.get("start", 0)), int(matcher.get("end", 0))

    def inside(value: bytes | None) -> bool:
        return value is not None and INTEGER.fullmatch(value) is not None and start <= int(value) < end

    return inside


def header_matcher(owner: str, matcher: Mapping[str, Any]) -> HeaderMatcher:
    """A HeaderMatcher, `invert_match` and `treat_missing_header_as_empty` included.

    Envoy: an inverted value match on an absent header does not match, unless the header is treated as empty.
    """
    name = matcher["name"].lower().encode()
    inner: Predicate
    if "present_match" in matcher:
        wanted = bool(matcher["present_match"])
        inner = lambda value: (value is not None) is wanted  # noqa: E731 - one predicate among many
        if matcher.get("invert_match"):
            return HeaderMatcher(name, lambda value: (value is not None) is not wanted, inverted=True)
        return HeaderMatcher(name, inner)
    inner = _header_value(owner, matcher)
    if matcher.get("treat_missing_header_as_empty"):
        base = inner
        inner = lambda value: base(value if value is not None else b"")  # noqa: E731 - one predicate among many
    elif matcher.get("invert_match"):
        base = inner
        return HeaderMatcher(name, lambda value: value is not None and not base(value), inverted=True)
    if matcher.get("invert_match"):
        inverted = inner
        return HeaderMatcher(name, lambda value: not inverted(value), inverted=True)
    return HeaderMatcher(name, inner)


def _header_value(owner: str, matcher: Mapping[str, Any]) -> Predicate:
    if "string_match" in matcher:
        return string_predicate(owner, matcher["string_match"])
    for old, new in (("exact_match", "exact"), ("prefix_match", "prefix"), ("suffix_match", "suffix"), ("contains_match", "contains")):
        if old in matcher:
            return string_predicate(owner, {new: matcher[old]})
    if "safe_regex_match" in matcher:
        return string_predicate(owner, {"safe_regex": matcher["safe_regex_match"]})
    if "range_match" in matcher:
        return _range(matcher["range_match"])
    return lambda value: value is not None


def query_matcher(owner: str, matcher: Mapping[str, Any]) -> HeaderMatcher:
    name = matcher["name"].encode()
    if "string_match" in matcher:
        return HeaderMatcher(name, string_predicate(owner, matcher["string_match"]))
    return HeaderMatcher(name, lambda value: value is not None)


def path_matcher(owner: str, match: Mapping[str, Any]) -> PathMatcher:
    fold = match.get("case_sensitive") is False
    if "prefix" in match:
        prefix = match["prefix"].encode()
        return PathMatcher(starts_with(prefix, fold=fold), prefix, f"prefix:{match['prefix']}")
    if "path" in match:
        path = match["path"].encode()
        return PathMatcher(exactly(path, fold=fold), path, f"exact:{match['path']}")
    if "path_separated_prefix" in match:
        return _separated(match["path_separated_prefix"].encode(), fold=fold)
    if "safe_regex" in match:
        return PathMatcher(full_match(owner, match["safe_regex"]["regex"]), None, f"regex:{match['safe_regex']['regex']}")
    raise ConfigError(owner, f"route match {sorted(match)} is not supported")


def _separated(prefix: bytes, *, fold: bool) -> PathMatcher:
    wanted = prefix.lower() if fold else prefix

    def matches(value: bytes | None) -> bool:
        if value is None:
            return False
        path = value.lower() if fold else value
        return path.startswith(wanted) and (len(path) == len(wanted) or path[len(wanted) : len(wanted) + 1] == b"/")

    return PathMatcher(matches, prefix, f"prefix:{prefix.decode()}/")


def fraction(percent: Mapping[str, Any] | None) -> float:
    """FractionalPercent -> 0..1; absent means 0 (type/v3/percent.proto)."""
    if not percent:
        return 0.0
    scale = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}[percent.get("denominator", "HUNDRED")]
    return min(1.0, float(percent.get("numerator", 0)) / scale)


def route_match(owner: str, match: Mapping[str, Any]) -> RouteMatch:
    refuse(owner, match, UNREAD_MATCHES, "match.")
    share = match.get("runtime_fraction")
    return RouteMatch(
        path=path_matcher(owner, match),
        headers=tuple(header_matcher(owner, m) for m in match.get("headers", ())),
        query=tuple(query_matcher(owner, m) for m in match.get("query_parameters", ())),
        runtime_fraction=fraction(share.get("default_value")) if share else None,
    )
