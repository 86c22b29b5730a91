"""What istiod's validation says of a VirtualService by itself (pkg/config/validation/virtualservice.go)."""

from collections.abc import Sequence

from devmesh.config.checks import CORS_METHODS, GRPC_STATUSES, RETRY_POLICIES, Checker, is_retry_policy
from devmesh.config.istio_networking import (
    Abort,
    CorsPolicy,
    Delay,
    Headers,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    RouteDestination,
    VirtualService,
)
from devmesh.config.names import host_matches, hosts_overlap
from devmesh.config.schema import suggest
from devmesh.config.syntax import is_address, is_label

WEIGHTS = "DM0011"
MESH = "mesh"


def check_virtual_service(check: Checker, spec: VirtualService) -> None:
    if not spec.hosts:
        _check_delegate(check, spec)
    _check_gateway_names(check, "spec.gateways", spec.gateways)
    _check_hosts(check, spec)
    if not (spec.http or spec.tls or spec.tcp):
        check.error("spec", "http, tcp or tls must be provided in virtual service")
    for index, route in enumerate(spec.http):
        _check_http(check, f"spec.http[{index}]", route, delegate=not spec.hosts)
    _check_claims(check, spec)
    _check_tls(check, spec)
    for index, tcp in enumerate(spec.tcp):
        for number, match in enumerate(tcp.match):
            at = f"spec.tcp[{index}].match[{number}]"
            check.subnets(f"{at}.destinationSubnets", match.destination_subnets)
            _check_match_common(check, at, match.port, match.source_labels, match.gateways)
        _check_destinations(check, f"spec.tcp[{index}]", tcp.route)
    check.export_to("spec.exportTo", spec.export_to)


def _check_delegate(check: Checker, spec: VirtualService) -> None:
    for name, given in (("gateways", spec.gateways), ("tls", spec.tls), ("tcp", spec.tcp)):
        if given:
            check.error(f"spec.{name}", f"delegate virtual service must have no {name} specified")


def _check_hosts(check: Checker, spec: VirtualService) -> None:
    applies_to_mesh = not spec.gateways or MESH in spec.gateways
    valid = True
    for index, host in enumerate(spec.hosts):
        path = f"spec.hosts[{index}]"
        if applies_to_mesh and host == "*":
            check.error(
                path, "wildcard host * is not allowed for virtual services bound to the mesh gateway", "name gateways:, or the hosts"
            )
            valid = False
        elif not check.domain(path, host, address=True):
            valid = False
    for index, host in enumerate(spec.hosts if valid else ()):
        for other in spec.hosts[:index]:
            if hosts_overlap(other, host):
                check.error(f"spec.hosts[{index}]", f"duplicate hosts in virtual service: {other} & {host}")


def _check_gateway_names(check: Checker, path: str, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        namespace, slash, short = name.partition("/")
        at = f"{path}[{index}]"
        if not slash:
            if "." in name:
                parts = name.split(".")
                check.warn(at, f'using legacy gatewayName format "{name}"; prefer the <namespace>/<name> format: "{parts[1]}/{parts[0]}"')
            check.domain(at, name, wildcard=False)
            return  # as istiod, which looks at no name after one without namespace
        if not (is_label(namespace) and is_label(short)):
            check.error(at, f'"{name}" is no gateway name: write <namespace>/<name>')


def _check_http(check: Checker, path: str, route: HTTPRoute, *, delegate: bool) -> None:
    _check_conflicts(check, path, route, delegate=delegate)
    for index, match in enumerate(route.match):
        _check_match(check, f"{path}.match[{index}]", match)
    check.header_operations(f"{path}.headers", route.headers)
    _check_cors(check, f"{path}.corsPolicy", route.cors_policy)
    _check_fault(check, f"{path}.fault", route.fault)
    _check_mirrors(check, path, route)
    _check_redirect(check, f"{path}.redirect", route.redirect, route.match)
    _check_direct_response(check, f"{path}.directResponse", route.direct_response)
    _check_retries(check, f"{path}.retries", route.retries)
    _check_rewrite(check, f"{path}.rewrite", route.rewrite, route.headers)
    if route.route:
        _check_destinations(check, path, route.route)


def _check_conflicts(check: Checker, path: str, route: HTTPRoute, *, delegate: bool) -> None:
    if route.delegate is not None:
        if delegate:
            check.error(f"{path}.delegate", "delegate HTTP route cannot contain delegate")
        for name, given in (("redirect", route.redirect), ("route", route.route)):
            if given:
                check.error(f"{path}.{name}", f"root HTTP route {route.name} must not specify {name}")
        return
    if route.redirect is None and route.direct_response is None:
        if not route.route:
            check.error(path, "HTTP route, redirect or direct_response is required", "add `route:` with a destination")
    else:
        _check_local_answer(check, path, route, "redirect" if route.redirect else "directResponse")
    if route.mirror and route.mirrors:
        check.error(f"{path}.mirrors", "HTTP route cannot contain both mirror and mirrors")


def _check_local_answer(check: Checker, path: str, route: HTTPRoute, answer: str) -> None:
    """Look for what contradicts, or means nothing beside, an answer that the proxy gives by itself."""
    excluded: dict[str, object] = {"route": route.route, "fault": route.fault, "rewrite": route.rewrite}
    if answer == "redirect":
        excluded["directResponse"] = route.direct_response
    for name, given in excluded.items():
        if given:
            check.error(f"{path}.{name}", f"HTTP route cannot contain both {name} and {answer}")
    idle: dict[str, object] = {"timeout": route.timeout, "retries": route.retries, "mirror": route.mirror, "mirrors": route.mirrors}
    for name, given in idle.items():
        if given:
            check.no_effect(f"{path}.{name}", f"a {answer} is answered by the proxy itself, nothing is sent on")


def _check_match(check: Checker, path: str, match: HTTPMatchRequest) -> None:
    for name, header in match.headers.items():
        check.header_match_name(f"{path}.headers.{name}", name)
        check.string_match(f"{path}.headers.{name}", header)
    for name, header in match.without_headers.items():
        check.header_match_name(f"{path}.withoutHeaders.{name}", name)
        # "*" is no RE2 regex: istiod translates it to "present".
        if header.regex != "*":
            check.string_match(f"{path}.withoutHeaders.{name}", header)
    check.string_match(f"{path}.uri", match.uri, empty_prefix=True)
    for name, given in (("scheme", match.scheme), ("method", match.method), ("authority", match.authority)):
        check.string_match(f"{path}.{name}", given)
    for name, parameter in match.query_params.items():
        check.string_match(f"{path}.queryParams.{name}", parameter)
    _check_match_common(check, path, match.port, match.source_labels, match.gateways)
    if match.source_namespace and not is_label(match.source_namespace):
        check.error(f"{path}.sourceNamespace", f"sourceNamespace match {match.source_namespace} is invalid")


def _check_match_common(check: Checker, path: str, port: int, labels: dict[str, str], gateways: tuple[str, ...]) -> None:
    if port:
        check.port(f"{path}.port", port)
    check.labels(f"{path}.sourceLabels", labels)
    _check_gateway_names(check, f"{path}.gateways", gateways)


def _check_claims(check: Checker, spec: VirtualService) -> None:
    for index, route in enumerate(spec.http):
        for number, match in enumerate(route.match):
            for part, names in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                for name in names:
                    if name.startswith("@request.auth.claims"):
                        path = f"spec.http[{index}].match[{number}].{part}.{name}"
                        check.add(
                            "error", "IST0149", path, f"{path}: JWT claim based routing needs RequestAuthentication, not supported yet"
                        )


def _check_cors(check: Checker, path: str, policy: CorsPolicy | None) -> None:
    if policy is None:
        return
    for index, origin in enumerate(policy.allow_origins):
        if not (origin.exact or origin.prefix or origin.regex):
            check.error(f"{path}.allowOrigins[{index}]", "'' is not a valid match type for CORS allow origins")
        elif origin.regex is not None:
            check.regex(f"{path}.allowOrigins[{index}].regex", origin.regex)
    for index, method in enumerate(policy.allow_methods):
        check.word(f"{path}.allowMethods[{index}]", method, CORS_METHODS, f'"{method}" is not a supported HTTP method')
    for part, names in (("allowHeaders", policy.allow_headers), ("exposeHeaders", policy.expose_headers)):
        for index, name in enumerate(names):
            check.header_name(f"{path}.{part}[{index}]", name)
    if policy.max_age is not None and policy.max_age % 1:
        check.error(f"{path}.maxAge", "max_age duration is accurate only to seconds precision")
    if policy.allow_origin:
        check.add("warning", "IST0002", f"{path}.allowOrigin", f"{path}.allowOrigin is deprecated", "use allowOrigins with exact:")


def _check_fault(check: Checker, path: str, fault: HTTPFaultInjection | None) -> None:
    if fault is None:
        return
    if fault.abort is None and fault.delay is None:
        check.error(path, "HTTP fault injection must have an abort and/or a delay")
    if fault.abort is not None:
        _check_abort(check, f"{path}.abort", fault.abort)
    if fault.delay is not None:
        _check_delay(check, f"{path}.delay", fault.delay)


def _check_abort(check: Checker, path: str, abort: Abort) -> None:
    if abort.percentage is None:
        check.no_effect(path, "without `percentage` a fault never fires")
    else:
        check.percent(f"{path}.percentage.value", abort.percentage.value)
    if abort.grpc_status is not None:
        check.word(f"{path}.grpcStatus", abort.grpc_status, GRPC_STATUSES, f'gRPC status "{abort.grpc_status}" is not supported')
    elif abort.http2_error is not None:
        check.error(f"{path}.http2Error", "HTTP/2 abort fault injection not supported yet")
    elif abort.http_status is not None:
        check.status(f"{path}.httpStatus", abort.http_status)
    else:
        check.warn(path, "abort configured, but error type not set")


def _check_delay(check: Checker, path: str, delay: Delay) -> None:
    if delay.percentage is not None:
        check.percent(f"{path}.percentage.value", delay.percentage.value)
    elif not delay.percent:
        check.no_effect(path, "without `percentage` a fault never fires")
    if not 0 <= delay.percent <= 100:
        check.error(f"{path}.percent", f"percentage {delay.percent} is not in range 0..100")
    if delay.exponential_delay is not None:
        check.error(f"{path}.exponentialDelay", "exponentialDelay not supported yet")


def _check_mirrors(check: Checker, path: str, route: HTTPRoute) -> None:
    if route.mirror_percent is not None:
        if route.mirror_percent > 100:
            check.error(f"{path}.mirrorPercent", f"mirror_percent must have a max value of 100 (it has {route.mirror_percent})")
        check.warn(f"{path}.mirrorPercent", 'using deprecated setting "mirrorPercent", use "mirrorPercentage" instead')
    if route.mirror_percentage is not None and not 0 <= route.mirror_percentage.value <= 100:
        check.error(f"{path}.mirrorPercentage.value", f"mirror percentage {route.mirror_percentage.value:g} is not in range 0..100")
    if route.mirror is not None:
        check.destination(f"{path}.mirror", route.mirror)
    for index, mirror in enumerate(route.mirrors):
        check.destination(f"{path}.mirrors[{index}].destination", mirror.destination)
        if mirror.percentage is not None and not 0 <= mirror.percentage.value <= 100:
            check.error(
                f"{path}.mirrors[{index}].percentage.value", f"mirror percentage {mirror.percentage.value:g} is not in range 0..100"
            )


def _check_redirect(check: Checker, path: str, redirect: HTTPRedirect | None, matches: tuple[HTTPMatchRequest, ...]) -> None:
    if redirect is None:
        return
    if redirect.uri and redirect.prefix_rewrite:
        check.error(path, "redirect may only specify one of uri or prefix_rewrite")
    if redirect.prefix_rewrite and any(match.uri is not None and match.uri.prefix is None for match in matches):
        check.error(f"{path}.prefixRewrite", "redirect prefix_rewrite requires all URI matches to use prefix match type")
    somewhere = redirect.uri or redirect.prefix_rewrite or redirect.authority or redirect.scheme
    if not somewhere and redirect.port is None and redirect.derive_port is None:
        check.error(path, "redirect must specify URI, authority, scheme, or port")
    if redirect.redirect_code and not 300 <= redirect.redirect_code <= 399:
        check.error(f"{path}.redirectCode", f"{redirect.redirect_code} is not a valid redirect code, must be 3xx")
    if redirect.scheme not in ("", "http", "https"):
        check.error(f"{path}.scheme", 'invalid redirect scheme, must be "http" or "https"')
    if redirect.port:
        check.port(f"{path}.port", redirect.port)


def _check_direct_response(check: Checker, path: str, response: HTTPDirectResponse | None) -> None:
    if response is None:
        return
    check.status(f"{path}.status", response.status)
    body = response.body
    size = 0 if body is None else len((body.string or "").encode()) + len(body.bytes_ or b"")
    if size > 1024 * 1024:
        check.error(f"{path}.body", "large direct_responses may impact control plane performance, must be less than 1MB")
    elif size > 100 * 1024:
        check.warn(f"{path}.body", "large direct_responses may impact control plane performance")


def _check_retries(check: Checker, path: str, retries: HTTPRetry | None) -> None:
    if retries is None:
        return
    if retries.attempts < 0:
        check.error(f"{path}.attempts", "attempts cannot be negative")
    configured = retries.per_try_timeout is not None or retries.retry_on or retries.retry_remote_localities is not None
    if retries.attempts == 0 and configured:
        check.error(path, "http retry policy configured when attempts are set to 0 (disabled)", "add attempts:")
    for word in retries.retry_on.split(",") if retries.retry_on else ():
        if not is_retry_policy(word):
            check.error(f"{path}.retryOn", f'"{word}" is not a valid retryOn policy', suggest(word.strip(), RETRY_POLICIES))


def _check_rewrite(check: Checker, path: str, rewrite: HTTPRewrite | None, headers: Headers | None) -> None:
    authority = rewrite.authority if rewrite else ""
    request = headers.request if headers else None
    for name, value in (*request.set.items(), *request.add.items()) if request else ():
        if name.lower() in ("host", ":authority"):
            if authority:
                check.error(path, f'authority header cannot be set multiple times: have "{authority}", attempting to set "{value}"')
            authority = value
    if rewrite is None:
        return
    regex = rewrite.uri_regex_rewrite
    if rewrite.uri and regex is not None:
        check.error(path, "rewrite may only contain one of URI or UriRegexRewrite")
    if not rewrite.uri and regex is None and not rewrite.authority:
        check.error(path, "rewrite must specify at least one of URI, UriRegexRewrite, or authority")
    if regex is not None and not (regex.match and regex.rewrite):
        check.error(f"{path}.uriRegexRewrite", "UriRegexRewrite requires both Rewrite and Match fields to be specified")
    elif regex is not None:
        check.regex(f"{path}.uriRegexRewrite.match", regex.match)


def _check_destinations(check: Checker, path: str, routes: Sequence[HTTPRouteDestination | RouteDestination]) -> None:
    if not routes:
        check.error(path, "route is required")
        return
    for index, one in enumerate(routes):
        at = f"{path}.route[{index}]"
        check.destination(f"{at}.destination", one.destination)
        if isinstance(one, HTTPRouteDestination):
            check.header_operations(f"{at}.headers", one.headers)
        if one.weight < 0:
            check.error(f"{at}.weight", f"weight {one.weight} < 0")
    total = sum(one.weight for one in routes)
    if len(routes) > 1 and total == 0:
        check.error(f"{path}.route", "total destination weight = 0", "give each destination a weight")
    elif len(routes) > 1 and total != 100:
        shares = ", ".join(f"{one.weight / total:.1%}" for one in routes)
        message = f"{path}.route: the weights add up to {total}, not 100: as in Istio they are taken in proportion ({shares})"
        check.add("warning", WEIGHTS, f"{path}.route", message, "make them add up to 100 if that is not what you meant")
    elif len(routes) == 1 and routes[0].weight not in (0, 100):
        check.add(
            "warning",
            WEIGHTS,
            f"{path}.route[0].weight",
            f"{path}.route[0].weight: a single destination gets everything, whatever its weight",
        )


def _check_tls(check: Checker, spec: VirtualService) -> None:
    for index, tls in enumerate(spec.tls):
        path = f"spec.tls[{index}]"
        if not tls.match:
            check.error(path, "TLS route must have at least one match condition")
        for number, match in enumerate(tls.match):
            at = f"{path}.match[{number}]"
            if not match.sni_hosts:
                check.error(at, "TLS match must have at least one SNI host")
            _check_sni_hosts(check, f"{at}.sniHosts", spec, match.sni_hosts)
            check.subnets(f"{at}.destinationSubnets", match.destination_subnets)
            _check_match_common(check, at, match.port, match.source_labels, match.gateways)
        _check_destinations(check, path, tls.route)


def _check_sni_hosts(check: Checker, path: str, spec: VirtualService, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        at = f"{path}[{index}]"
        if is_address(name):
            check.warn(at, f'using an IP address ("{name}") goes against SNI spec and most clients do not support this')
        elif check.domain(at, name) and not any(host_matches(host, name) for host in spec.hosts):
            check.error(at, f'SNI host "{name}" is not a compatible subset of any of the hosts: [{", ".join(spec.hosts)}]')
