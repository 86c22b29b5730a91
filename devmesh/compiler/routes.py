"""VirtualService HTTP routes -> Route, and the route tables of sidecars and gateways, in istiod's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from devmesh.compiler import route_match
from devmesh.compiler.clusters import cluster_name
from devmesh.compiler.destination_rules import Client, client_of, rule_for
from devmesh.compiler.policies import destination_hash, service_hash
from devmesh.compiler.scope import gateway_name, service_called
from devmesh.compiler.shared import TYPE, Json, config_path, metadata, million
from devmesh.compiler.world import World, matches, per_world
from devmesh.config.durations import format_duration
from devmesh.config.istio_networking import (
    ConsistentHashLB,
    CorsPolicy,
    Destination,
    HeaderOperations,
    Headers,
    HTTPCookieAttribute,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRoute,
    HTTPRouteDestination,
    Percent,
    VirtualService,
)
from devmesh.config.model import Resource
from devmesh.config.names import expand_host
from devmesh.config.topology_types import Service, Workload

DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
PREVIOUS_HOSTS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {"@type": f"{TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
}
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECT_CODES = {301: None, 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT"}
GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def default_route(cluster: str, operation: str, retries: HTTPRetry | None = None) -> Json:
    """`retries` is the mesh's own default (meshConfig.defaultHttpRetryPolicy)."""
    retry = {"retry_policy": retry_policy(retries)} if retries is None or retries.attempts > 0 else {}
    return {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": "0s", **retry, "max_grpc_timeout": "0s"},
        "decorator": {"operation": operation},
    }


def default_retry() -> Json:
    return {
        "retry_on": DEFAULT_RETRY_ON,
        "num_retries": 2,
        "retry_host_predicate": [PREVIOUS_HOSTS],
        "host_selection_retry_max_attempts": "5",
    }


def routes_of(
    world: World, proxy: Workload, resource: Resource, spec: VirtualService, port: int, gateways: frozenset[str], *, tls: bool = False
) -> list[Json]:
    """Routes of one VirtualService as one proxy sees them at one listener port, each with its line."""
    seen = Seen(client_of(world, proxy), proxy.gateway, port, gateways, tls)
    return _built(world, resource, spec, seen, tuple(_chosen(spec, seen, proxy, resource.key.namespace)))


class Seen(NamedTuple):
    """From where a VirtualService is looked at: what its routes depend on besides which of them a proxy gets."""

    client: Client
    at_gateway: bool
    port: int
    gateways: frozenset[str]
    tls: bool  # a gateway's server has tls settings, if only to redirect


Chosen = tuple[int, int]  # an HTTPRoute's index, and its match's; -1: it has none


def _chosen(spec: VirtualService, seen: Seen, proxy: Workload, namespace: str) -> Iterator[Chosen]:
    """Those that apply, up to one that takes every request."""
    for index, http in enumerate(spec.http):
        if not http.match:
            yield index, -1
            return
        for position, match in enumerate(http.match):
            if _applies(match, seen, proxy, namespace):
                yield index, position
                if route_match.catch_all(match):
                    return


def _applies(match: HTTPMatchRequest, seen: Seen, proxy: Workload, namespace: str) -> bool:
    """What only this proxy's table can say: port, and gateways or, without them, sourceLabels and sourceNamespace."""
    if match.port and match.port != seen.port:
        return False
    if match.gateways:
        return not seen.gateways.isdisjoint(gateway_name(name, namespace) for name in match.gateways)
    if match.source_labels and not matches(match.source_labels, proxy.labels):
        return False
    return not match.source_namespace or match.source_namespace == seen.client.namespace


@per_world
def _built(world: World, resource: Resource, spec: VirtualService, seen: Seen, chosen: tuple[Chosen, ...]) -> list[Json]:
    builder = RouteBuilder(world, resource, spec, seen)
    return [builder.route(index, position) for index, position in chosen]


class RouteBuilder:
    """Makes routes of one VirtualService."""

    def __init__(self, world: World, resource: Resource, spec: VirtualService, seen: Seen) -> None:
        self.world, self.resource, self.spec, self.seen = world, resource, spec, seen
        self.port = seen.port
        self.namespace = resource.key.namespace

    def route(self, index: int, position: int) -> Json:
        http = self.spec.http[index]
        return self._route(http, http.match[position] if position >= 0 else None, index)

    def _route(self, http: HTTPRoute, match: HTTPMatchRequest | None, index: int) -> Json:
        out: Json = {"match": route_match.translate(match)}
        name = http.name
        if match is not None and match.name:
            name = f"{name}.{match.name}"
        if name:
            out["name"] = name
        config = config_path("networking.istio.io", "v1", self.namespace, "virtual-service", self.resource.key.name)
        out["metadata"] = metadata(config, self.world.http_position(self.resource, index))
        if http.redirect is not None:
            out["redirect"] = self._redirect(http.redirect)
        elif http.direct_response is not None:
            out["direct_response"] = _direct_response(http.direct_response)
        else:
            self._forward(out, http)
        out["decorator"] = {"operation": self._operation(out)}
        self._edits(out, http.headers)
        filters = self._filters(http)
        if filters:
            out["typed_per_filter_config"] = filters
        if match is not None and match.stat_prefix:
            out["stat_prefix"] = match.stat_prefix
        return out

    def _forward(self, out: Json, http: HTTPRoute) -> None:
        action: Json = {"timeout": format_duration(http.timeout) if http.timeout is not None else "0s"}
        self._rewrite(action, http)
        destinations = [one for one in http.route if len(http.route) == 1 or one.weight > 0]
        if len(http.route) == 1:
            only = destinations[0]
            action["cluster"] = self._cluster(only.destination)
            self._destination_headers(out, action, only.headers)
        else:
            action["weighted_clusters"] = {"clusters": [self._weighted(one.destination, one.weight, one.headers) for one in destinations]}
        hashing = self._hash_policies(destinations)
        retries = http.retries or self.world.settings.default_http_retry_policy
        if retries is None or retries.attempts > 0:
            action["retry_policy"] = retry_policy(retries, hashed=bool(hashing) and len(http.route) == 1)
        action["max_grpc_timeout"] = action["timeout"]
        mirrors = self._mirrors(http)
        if mirrors:
            action["request_mirror_policies"] = mirrors
        if hashing:
            action["hash_policy"] = hashing
        out["route"] = action

    def _operation(self, out: Json) -> str:
        """What tracing names: the only destination, else the VirtualService (istiod's GetRouteOperation)."""
        match = out["match"]
        path = f"{match['prefix']}*" if "prefix" in match else match["path"] if "path" in match else match["safe_regex"]["regex"]
        _, _, cluster = out.get("route", {}).get("cluster", "").partition("|")
        if cluster:
            port, _, host = cluster.split("|")
            return f"{host}:{port}{path}"
        return f"{self.resource.key.name}:{self.port}{path}"

    def _host(self, destination: Destination | None) -> str:
        return expand_host(destination.host, self.namespace) if destination is not None else ""

    def _port(self, destination: Destination | None) -> int:
        if destination is not None and destination.port is not None and destination.port.number:
            return destination.port.number
        if self.seen.at_gateway:
            service = service_called(self.world, self._host(destination), self.seen.client.namespace, at_gateway=True)
            if service is not None and len(service.ports) == 1:
                return service.ports[0].port
        return self.port

    def _cluster(self, destination: Destination | None) -> str:
        subset = destination.subset if destination is not None else ""
        return cluster_name(self._host(destination), self._port(destination), subset)

    def _weighted(self, destination: Destination | None, weight: int, headers: Headers | None) -> Json:
        out: Json = {"name": self._cluster(destination), "weight": weight}
        if headers is not None:
            _header_operations(out, headers)
            host = _host_header(headers)
            if host:
                out["host_rewrite_literal"] = host
        return out

    def _destination_headers(self, out: Json, action: Json, headers: Headers | None) -> None:
        if headers is None:
            return
        _header_operations(out, headers)
        host = _host_header(headers)
        if host and "host_rewrite_literal" not in action:
            action["host_rewrite_literal"] = host

    def _edits(self, out: Json, headers: Headers | None) -> None:
        if headers is None:
            return
        own: Json = {}
        _header_operations(own, headers)
        for key, value in own.items():
            out[key] = [*value, *out.get(key, [])]

    def _rewrite(self, action: Json, http: HTTPRoute) -> None:
        """The rewrite's authority comes before that of the route's headers, which comes before a destination's."""
        rewrite = http.rewrite
        if rewrite is not None and rewrite.uri_regex_rewrite is not None:
            regex = rewrite.uri_regex_rewrite
            action["regex_rewrite"] = {"pattern": {"regex": regex.match}, "substitution": regex.rewrite}
        elif rewrite is not None and rewrite.uri:
            action["prefix_rewrite"] = rewrite.uri
        authority = (rewrite.authority if rewrite is not None else "") or (_host_header(http.headers) if http.headers is not None else "")
        if authority:
            action["host_rewrite_literal"] = authority

    def _mirrors(self, http: HTTPRoute) -> list[Json]:
        out = []
        if http.mirror is not None:
            if http.mirror_percentage is None and http.mirror_percent is not None:  # the deprecated form
                if http.mirror_percent:
                    out.append(self._mirror(http.mirror, {"numerator": http.mirror_percent}))
            elif http.mirror_percentage is None or http.mirror_percentage.value > 0:
                out.append(self._mirror(http.mirror, _fraction(http.mirror_percentage)))
        for mirror in http.mirrors:
            if mirror.destination is not None and (mirror.percentage is None or mirror.percentage.value > 0):
                out.append(self._mirror(mirror.destination, _fraction(mirror.percentage)))
        return out

    def _mirror(self, destination: Destination, fraction: Json) -> Json:
        return {
            "cluster": self._cluster(destination),
            "runtime_fraction": {"default_value": fraction},
            "trace_sampled": False,
            "disable_shadow_host_suffix_append": True,
        }

    def _hash_policies(self, destinations: Iterable[HTTPRouteDestination]) -> list[Json]:
        """One of each destination that has one, in their order, as istiod appends them."""
        out = []
        for one in destinations:
            service = service_called(self.world, self._host(one.destination), self.seen.client.namespace, at_gateway=self.seen.at_gateway)
            rule = rule_for(self.world, service, self.seen.client) if service is not None else None
            if rule is not None and one.destination is not None:
                found = hash_policy(destination_hash(rule.spec, one.destination))
                out += [found] if found else []
        return out

    def _redirect(self, redirect: HTTPRedirect) -> Json:
        out: Json = {}
        if redirect.authority:
            out["host_redirect"] = redirect.authority
        if redirect.prefix_rewrite:
            out["prefix_rewrite"] = redirect.prefix_rewrite
        else:
            out["path_redirect"] = redirect.uri
        if redirect.scheme:
            out["scheme_redirect"] = redirect.scheme
        if redirect.port is not None:
            out["port_redirect"] = redirect.port
        elif redirect.derive_port == "FROM_REQUEST_PORT":
            out["port_redirect"] = self.port
        if out.get("port_redirect") == DEFAULT_PORTS.get(redirect.scheme or ("https" if self.seen.tls else "http")):
            del out["port_redirect"]
        code = REDIRECT_CODES.get(redirect.redirect_code or 301)
        if code is not None:
            out["response_code"] = code
        return out

    def _filters(self, http: HTTPRoute) -> Json:
        out: Json = {}
        if http.fault is not None:
            out["envoy.filters.http.fault"] = fault(http.fault)
        if http.cors_policy is not None:
            out["envoy.filters.http.cors"] = cors(http.cors_policy)
        return out


def service_hash_policy(world: World, service: Service, port: int, client: Client) -> Json | None:
    rule = rule_for(world, service, client)
    return hash_policy(service_hash(rule.spec, port)) if rule is not None else None


def hash_policy(hashing: ConsistentHashLB | None) -> Json | None:
    """consistentHash lands on routes (RouteAction.hash_policy)."""
    if hashing is None:
        return None
    if hashing.http_header_name:
        return {"header": {"header_name": hashing.http_header_name}}
    if hashing.http_cookie is not None:
        cookie: Json = {"name": hashing.http_cookie.name}
        if hashing.http_cookie.ttl is not None:
            cookie["ttl"] = format_duration(hashing.http_cookie.ttl)
        if hashing.http_cookie.path:
            cookie["path"] = hashing.http_cookie.path
        if hashing.http_cookie.attributes:
            cookie["attributes"] = [_attribute(one) for one in hashing.http_cookie.attributes]
        return {"cookie": cookie}
    if hashing.use_source_ip is not None:
        return {"connection_properties": {"source_ip": True} if hashing.use_source_ip else {}}
    if hashing.http_query_parameter_name:
        return {"query_parameter": {"name": hashing.http_query_parameter_name}}
    return None


def _attribute(attribute: HTTPCookieAttribute) -> Json:
    return {"name": attribute.name, **({"value": attribute.value} if attribute.value else {})}


def retry_policy(retries: HTTPRetry | None, *, hashed: bool = False) -> Json:
    """retryOn's numbers become retriable_status_codes (istiod's retry.ConvertPolicy); a hashed request may meet its host again."""
    out = default_retry()
    if hashed:
        del out["retry_host_predicate"]
    if retries is None:
        return out
    out["num_retries"] = retries.attempts
    if retries.retry_on:
        words = [word.strip() for word in retries.retry_on.split(",")]
        codes = [int(word) for word in words if word.isdecimal()]
        names = [word for word in words if word and not word.isdecimal()]
        # istiod's leading comma, when there are only numbers, is kept: proxies skip the empty word.
        out["retry_on"] = ",".join(names) + (",retriable-status-codes" if codes and "retriable-status-codes" not in names else "")
        if codes:
            out["retriable_status_codes"] = codes
    if retries.per_try_timeout is not None:
        out["per_try_timeout"] = format_duration(retries.per_try_timeout)
    if retries.retry_ignore_previous_hosts is False:
        out.pop("retry_host_predicate", None)
    elif retries.retry_ignore_previous_hosts:
        out["retry_host_predicate"] = [PREVIOUS_HOSTS]
    if retries.backoff is not None:
        out["retry_back_off"] = {"base_interval": format_duration(retries.backoff)}
    if retries.retry_remote_localities:
        out["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{TYPE}envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2,
            },
        }
    return out


def fault(injection: HTTPFaultInjection) -> Json:
    out: Json = {"@type": f"{TYPE}envoy.extensions.filters.http.fault.v3.HTTPFault"}
    if injection.delay is not None:
        whole = {"numerator": injection.delay.percent} if injection.delay.percent else {}  # the deprecated form
        delay: Json = _percentage(injection.delay.percentage) or {"percentage": whole}
        if injection.delay.fixed_delay is not None:
            delay["fixed_delay"] = format_duration(injection.delay.fixed_delay)
        out["delay"] = delay
    if injection.abort is not None:
        abort = _percentage(injection.abort.percentage)
        if injection.abort.http_status is not None:
            abort["http_status"] = injection.abort.http_status
        elif injection.abort.grpc_status is not None:
            abort["grpc_status"] = GRPC_CODES.index(injection.abort.grpc_status)
        out["abort"] = abort
    return out


def _percentage(percent: Percent | None) -> Json:
    """A fault without one never fires: istiod leaves it out, and Envoy takes that for 0."""
    return {"percentage": million(percent.value)} if percent is not None else {}


def _fraction(percent: Percent | None) -> Json:
    """Of the requests that a mirror gets: without a share, all."""
    return million(percent.value) if percent is not None else {"numerator": 100}


def cors(policy: CorsPolicy) -> Json:
    out: Json = {"@type": f"{TYPE}envoy.extensions.filters.http.cors.v3.CorsPolicy"}
    origins = [route_match.string_matcher(origin) for origin in policy.allow_origins] or [
        {"exact": origin} for origin in policy.allow_origin
    ]
    if origins:
        out["allow_origin_string_match"] = origins
    for name in ("allow_methods", "allow_headers", "expose_headers"):
        values = getattr(policy, name)
        if values:
            out[name] = ",".join(values)
    if policy.max_age is not None:
        out["max_age"] = str(int(policy.max_age))
    if policy.allow_credentials is not None:
        out["allow_credentials"] = policy.allow_credentials
    out["filter_enabled"] = {"default_value": {"numerator": 100}}
    out["forward_not_matching_preflights"] = policy.unmatched_preflights != "IGNORE"
    return out


def _direct_response(response: HTTPDirectResponse) -> Json:
    out: Json = {"status": response.status}
    if response.body is not None:
        if response.body.string is not None:
            out["body"] = {"inline_string": response.body.string}
        elif response.body.bytes_ is not None:
            import base64  # noqa: PLC0415 - the rare form

            out["body"] = {"inline_bytes": base64.b64encode(response.body.bytes_).decode()}
    return out


def _host_header(headers: Headers) -> str:
    if headers.request is None:
        return ""
    for operations in (headers.request.set, headers.request.add):
        for name, value in operations.items():
            if name.lower() in ("host", ":authority"):
                return value
    return ""


def _header_operations(out: Json, headers: Headers) -> None:
    for side, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        added = _added(operations)
        if added:
            out[f"{side}_headers_to_add"] = added
        if operations.remove:
            out[f"{side}_headers_to_remove"] = list(operations.remove)


def _added(operations: HeaderOperations) -> list[Json]:
    return _options(operations.set, "OVERWRITE_IF_EXISTS_OR_ADD") + _options(operations.add, None)


def _options(values: Mapping[str, str], action: str | None) -> list[Json]:
    out = []
    for name, value in sorted(values.items()):
        if name.lower() in ("host", ":authority"):
            continue
        option: Json = {"header": {"key": name, "value": value}}
        if action:
            option["append_action"] = action
        out.append(option)
    return out
