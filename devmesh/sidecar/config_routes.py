"""RouteConfiguration, VirtualHost and Route (config/route/v3) -> frozen values."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from devmesh.sidecar.config import (
    ConfigError,
    CorsPolicy,
    DirectResponseAction,
    FaultPolicy,
    HashPolicy,
    HeaderEdit,
    HeaderEdits,
    Mirror,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from devmesh.sidecar.matching import compile_regex, fraction, header_matcher, route_match, string_predicate

Json = Mapping[str, Any]
FAULT, CORS = "envoy.filters.http.fault", "envoy.filters.http.cors"
REDIRECT_CODES = {"MOVED_PERMANENTLY": 301, "FOUND": 302, "SEE_OTHER": 303, "TEMPORARY_REDIRECT": 307, "PERMANENT_REDIRECT": 308}
DEFAULT_ROUTE_TIMEOUT = 15.0  # RouteAction.timeout: "If not specified, the default is 15s"


def seconds(value: str | None, default: float | None = None) -> float | None:
    """A proto-JSON Duration (`"0.500s"`) in seconds."""
    return default if value is None else float(value[:-1])


def limit(value: str | None, default: float | None) -> float | None:
    """A Duration where `0s` means no limit."""
    return seconds(value, default) or None


def header_edits(message: Json) -> HeaderEdits:
    return HeaderEdits(
        tuple(_edit(option) for option in message.get("request_headers_to_add", ())),
        tuple(name.lower().encode() for name in message.get("request_headers_to_remove", ())),
        tuple(_edit(option) for option in message.get("response_headers_to_add", ())),
        tuple(name.lower().encode() for name in message.get("response_headers_to_remove", ())),
    )


def _edit(option: Json) -> HeaderEdit:
    append = option.get("append_action", "APPEND_IF_EXISTS_OR_ADD")
    if option.get("append") is False:
        append = "OVERWRITE_IF_EXISTS_OR_ADD"
    return HeaderEdit(option["header"]["key"].lower().encode(), option["header"].get("value", "").encode(), append)


def parse_route_table(table: Json) -> RouteTable:
    name = table.get("name", "")
    hosts = tuple(_virtual_host(name, host) for host in table.get("virtual_hosts", ()))
    exact: dict[bytes, VirtualHost] = {}
    wildcards: list[tuple[bytes, VirtualHost]] = []
    default = None
    for host in hosts:
        for domain in host.domains:
            if domain == b"*":
                default = host
            elif b"*" in domain:
                wildcards.append((domain, host))
            elif domain in exact:
                raise ConfigError(name, f"Only unique values for domains are permitted. Duplicate entry of domain {domain.decode()}")
            else:
                exact[domain] = host
    # Envoy tries suffix wildcards (*.x) longest first, then prefix wildcards (x.*) longest first.
    wildcards.sort(key=lambda pair: (not pair[0].startswith(b"*"), -len(pair[0])))
    return RouteTable(
        name,
        hosts,
        exact,
        tuple(wildcards),
        default,
        ignore_port_in_host=bool(table.get("ignore_port_in_host_matching")),
        edits=header_edits(table),
    )


def _virtual_host(table: str, host: Json) -> VirtualHost:
    owner = f"{table}/{host['name']}"
    shared = host.get("retry_policy")
    return VirtualHost(
        name=host["name"],
        domains=tuple(domain.lower().encode() for domain in host["domains"]),
        routes=tuple(_route(owner, route, shared) for route in host.get("routes", ())),
        require_tls=host.get("require_tls", "NONE") != "NONE",
        include_attempt_count=bool(host.get("include_request_attempt_count")),
        edits=header_edits(host),
    )


def _route(owner: str, route: Json, shared_retry: Json | None) -> Route:
    where = f"{owner}/{route.get('name', '')}"
    per_filter = route.get("typed_per_filter_config", {})
    for name in per_filter:
        if name not in (FAULT, CORS) and not name.startswith("istio."):
            raise ConfigError(where, f"per-route configuration of {name} is not supported")
    metadata = route.get("metadata", {}).get("filter_metadata", {})
    fault_id = metadata.get("devmesh", {}).get("fault", "")
    return Route(
        name=route.get("name", ""),
        match=route_match(where, route["match"]),
        action=_action(where, route, shared_retry),
        edits=header_edits(route),
        fault=parse_fault(where, per_filter[FAULT], fault_id) if FAULT in per_filter else None,
        cors=_cors(where, per_filter[CORS]) if CORS in per_filter else None,
        origin=metadata.get("istio", {}).get("config", ""),
        operation=route.get("decorator", {}).get("operation", ""),
    )


def _action(where: str, route: Json, shared_retry: Json | None) -> RouteAction | RedirectAction | DirectResponseAction:
    if "route" in route:
        return _forward(where, route["route"], shared_retry)
    if "redirect" in route:
        return _redirect(route["redirect"])
    if "direct_response" in route:
        return DirectResponseAction(int(route["direct_response"]["status"]), _body(route["direct_response"].get("body", {})))
    if "non_forwarding_action" in route:
        raise ConfigError(where, "non_forwarding_action is not supported")
    raise ConfigError(where, "a route without an action")


def _body(source: Json) -> bytes:
    if "inline_bytes" in source:
        return base64.b64decode(source["inline_bytes"])
    return str(source.get("inline_string", "")).encode()


def _redirect(redirect: Json) -> RedirectAction:
    return RedirectAction(
        status=REDIRECT_CODES[redirect.get("response_code", "MOVED_PERMANENTLY")],
        host=_optional(redirect, "host_redirect"),
        path=_optional(redirect, "path_redirect"),
        prefix=_optional(redirect, "prefix_rewrite"),
        scheme=_optional(redirect, "scheme_redirect"),
        https=bool(redirect.get("https_redirect")),
        port=redirect.get("port_redirect"),
        strip_query=bool(redirect.get("strip_query")),
    )


def _optional(message: Json, key: str) -> bytes | None:
    value = message.get(key)
    return value.encode() if value else None


def _forward(where: str, action: Json, shared_retry: Json | None) -> RouteAction:
    clusters = _clusters(where, action)
    retry = action.get("retry_policy", shared_retry)
    rewrite = action.get("regex_rewrite")
    return RouteAction(
        clusters=clusters,
        total_weight=sum(cluster.weight for cluster in clusters),
        timeout=limit(action.get("timeout"), DEFAULT_ROUTE_TIMEOUT),
        idle_timeout=limit(action.get("idle_timeout"), None),
        max_stream_duration=limit(action.get("max_stream_duration", {}).get("max_stream_duration"), None),
        retry=_retry(where, retry) if retry else None,
        prefix_rewrite=_optional(action, "prefix_rewrite"),
        regex_rewrite=(compile_regex(where, rewrite["pattern"]["regex"]), rewrite.get("substitution", "").encode()) if rewrite else None,
        host_rewrite=_optional(action, "host_rewrite_literal"),
        auto_host_rewrite=bool(action.get("auto_host_rewrite")),
        hash_policies=tuple(_hash_policy(where, policy) for policy in action.get("hash_policy", ())),
        mirrors=tuple(_mirror(mirror) for mirror in action.get("request_mirror_policies", ())),
        upgrade_websocket=_websocket(action),
    )


def _websocket(action: Json) -> bool | None:
    for upgrade in action.get("upgrade_configs", ()):
        if upgrade["upgrade_type"].lower() == "websocket":
            return bool(upgrade.get("enabled", True))
    return None


def _clusters(where: str, action: Json) -> tuple[WeightedCluster, ...]:
    if "cluster" in action:
        return (WeightedCluster(action["cluster"], 1),)
    if "weighted_clusters" in action:
        return tuple(
            WeightedCluster(c["name"], int(c.get("weight", 0)), header_edits(c), _optional(c, "host_rewrite_literal"))
            for c in action["weighted_clusters"]["clusters"]
        )
    raise ConfigError(where, f"route action {sorted(action)} names no cluster")


def _mirror(mirror: Json) -> Mirror:
    share = mirror.get("runtime_fraction")
    return Mirror(mirror["cluster"], fraction(share["default_value"]) if share else 1.0)


def _retry(where: str, retry: Json) -> RetryPolicy:
    back_off = retry.get("retry_back_off", {})
    base = seconds(back_off.get("base_interval"), 0.025) or 0.025
    return RetryPolicy(
        retry_on=frozenset(filter(None, retry.get("retry_on", "").replace(" ", "").split(","))),
        num_retries=int(retry.get("num_retries", 1)),
        per_try_timeout=limit(retry.get("per_try_timeout"), None),
        retriable_status_codes=frozenset(int(code) for code in retry.get("retriable_status_codes", ())),
        base_interval=base,
        max_interval=seconds(back_off.get("max_interval"), 10 * base) or 10 * base,
        previous_hosts=any("previous_hosts" in p["name"] for p in retry.get("retry_host_predicate", ())),
        host_selection_attempts=int(retry.get("host_selection_retry_max_attempts", 1)),
        retriable_headers=tuple(header_matcher(where, m) for m in retry.get("retriable_headers", ())),
    )


def _hash_policy(where: str, policy: Json) -> HashPolicy:
    terminal = bool(policy.get("terminal"))
    if "header" in policy:
        return HashPolicy("header", policy["header"]["header_name"].lower().encode(), terminal=terminal)
    if "cookie" in policy:
        cookie = policy["cookie"]
        return HashPolicy("cookie", cookie["name"].encode(), seconds(cookie.get("ttl")), cookie.get("path", "").encode(), terminal)
    if "connection_properties" in policy:
        return HashPolicy("source_ip", b"", terminal=terminal)
    if "query_parameter" in policy:
        return HashPolicy("query", policy["query_parameter"]["name"].encode(), terminal=terminal)
    raise ConfigError(where, f"hash policy {sorted(policy)} is not supported")


def parse_fault(where: str, fault: Json, fault_id: str = "") -> FaultPolicy:
    delay, abort = fault.get("delay", {}), fault.get("abort", {})
    return FaultPolicy(
        delay=seconds(delay.get("fixed_delay")),
        delay_fraction=fraction(delay.get("percentage")),
        abort_status=abort.get("http_status"),
        abort_grpc_status=abort.get("grpc_status"),
        abort_fraction=fraction(abort.get("percentage")),
        headers=tuple(header_matcher(where, m) for m in fault.get("headers", ())),
        fault_id=fault_id,
    )


def _cors(where: str, policy: Json) -> CorsPolicy:
    return CorsPolicy(
        allow_origin=tuple(string_predicate(where, m) for m in policy.get("allow_origin_string_match", ())),
        allow_methods=policy.get("allow_methods", "").encode(),
        allow_headers=policy.get("allow_headers", "").encode(),
        expose_headers=policy.get("expose_headers", "").encode(),
        max_age=policy.get("max_age", "").encode(),
        allow_credentials=bool(policy.get("allow_credentials")),
        forward_not_matching_preflights=bool(policy.get("forward_not_matching_preflights", True)),
    )
