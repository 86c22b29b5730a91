"""Rules of a VirtualService that can never be reached (istiod's analyzeUnreachableHTTPRules: IST0130, IST0131)."""

from collections.abc import Sequence

from devmesh.config.checks import Checker
from devmesh.config.istio_networking import HTTPMatchRequest, HTTPRoute, StringMatch, TCPRoute, TLSRoute, VirtualService

UNREACHABLE, INEFFECTIVE = "IST0130", "IST0131"
Route = HTTPRoute | TCPRoute | TLSRoute


def check_reachability(check: Checker, spec: VirtualService) -> None:
    _check_routes(check, "spec.http", spec.http)
    _check_routes(check, "spec.tcp", spec.tcp)
    _check_routes(check, "spec.tls", spec.tls)
    _check_covered_prefixes(check, spec.http)


def _name(route: Route, index: int) -> str:
    return f'"{route.name}"' if isinstance(route, HTTPRoute) and route.name else f"#{index}"


def _unreachable(check: Checker, path: str, rule: str, reason: str) -> None:
    check.add("warning", UNREACHABLE, path, f"VirtualService rule {rule} not used ({reason}).")


def _ineffective(check: Checker, path: str, rule: str, match: str, earlier: str) -> None:
    message = f"VirtualService rule {rule} match {match} is not used (duplicate/overlapping match in rule {earlier})."
    check.add("info", INEFFECTIVE, path, message)


def _check_routes(check: Checker, path: str, routes: Sequence[Route]) -> None:
    seen: dict[str, str] = {}
    catch_all = False
    for index, route in enumerate(routes):
        at, rule = f"{path}[{index}]", _name(route, index)
        if not route.match:
            if catch_all:
                _unreachable(check, at, rule, "only the last rule can have no matches")
            catch_all = True
            continue
        if catch_all:
            _unreachable(check, at, rule, "route without matches defined before")
            continue
        duplicates = 0
        for number, match in enumerate(route.match):
            text = match.model_dump_json(exclude={"name"})
            if text in seen:
                duplicates += 1
                _ineffective(check, f"{at}.match[{number}]", rule, f"#{number}", seen[text])
            seen.setdefault(text, rule)
        if duplicates == len(route.match):
            _unreachable(check, at, rule, "all matches used by prior rules")


def _check_covered_prefixes(check: Checker, routes: Sequence[HTTPRoute]) -> None:
    matches = [
        (index, number, match)
        for index, route in enumerate(routes)
        for number, match in enumerate(route.match)
        if match.uri is not None and match.uri.prefix
    ]
    for place, (index, number, match) in enumerate(matches):
        for earlier_index, earlier_number, earlier in matches[:place]:
            if _prefix(earlier) != _prefix(match) and _covers(earlier, match):
                rule, earlier_rule = _name(routes[index], index), _name(routes[earlier_index], earlier_index)
                covered = f"#{number} of prefix {_prefix(match)}"
                _ineffective(
                    check,
                    f"spec.http[{index}].match[{number}]",
                    rule,
                    covered,
                    f"{earlier_rule} match #{earlier_number}, prefix {_prefix(earlier)}",
                )


def _prefix(match: HTTPMatchRequest) -> str:
    return (match.uri.prefix if match.uri else None) or ""


def _covers(earlier: HTTPMatchRequest, later: HTTPMatchRequest) -> bool:
    """Say whether everything `later` matches was taken by `earlier`; only equal or absent conditions count, so it never cries wolf."""
    if not _prefix(later).startswith(_prefix(earlier)) or earlier.ignore_uri_case != later.ignore_uri_case:
        return False
    for name in ("scheme", "method", "authority", "port", "source_labels", "gateways", "source_namespace"):
        wanted = getattr(earlier, name)
        if wanted and wanted != getattr(later, name):
            return False
    pairs = ((earlier.headers, later.headers), (earlier.query_params, later.query_params), (earlier.without_headers, later.without_headers))
    return all(_among(wanted, given) for wanted, given in pairs)


def _among(wanted: dict[str, StringMatch], given: dict[str, StringMatch]) -> bool:
    return all(given.get(name) == match for name, match in wanted.items())
