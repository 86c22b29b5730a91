"""RouteConfiguration, VirtualHost and Route (config/route/v3) -> frozen values."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from devmesh.sidecar.config import (
    NO_EDITS,
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
from devmesh.sidecar.config_common import Json, limit, optional_number, refuse, seconds
from devmesh.sidecar.filters.headers import unknown_operator
from devmesh.sidecar.matching import fraction, header_matcher, regex_rewrite, route_match, string_predicate
from devmesh.sidecar.message import FRAMING

CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection"})
FAULT, CORS = "envoy.filters.http.fault", "envoy.filters.http.cors"
PER_ROUTE = {FAULT: "HTTPFault", CORS: "CorsPolicy"}
REDIRECT_CODES = {"MOVED_PERMANENTLY": 301, "FOUND": 302, "SEE_OTHER": 303, "TEMPORARY_REDIRECT": 307, "PERMANENT_REDIRECT": 308}
DEFAULT_ROUTE_TIMEOUT = 15.0  # RouteAction.timeout: "If not specified, the default is 15s"
# What would change a request's way and is read by nothing here.
UNREAD_TABLE = ("vhds", "most_specific_header_mutations_wins", "request_mirror_policies", "cluster_specifier_plugins")
UNREAD_HOST = ("matcher", "rate_limits", "hedge_policy", "request_mirror_policies", "retry_policy_typed_config", "cors")
UNREAD_ACTION = (
    "auto_host_rewrite", "host_rewrite_header", "host_rewrite_path_regex", "path_rewrite_policy", "internal_redirect_policy", "hedge_policy",
    "rate_limits", "metadata_match", "retry_policy_typed_config", "cors", "append_x_forwarded_host",
)  # fmt: skip
UNREAD_RETRY = ("retriable_request_headers", "retry_options_predicates", "rate_limited_retry_back_off")
UNREAD_FAULT = ("upstream_cluster", "downstream_nodes", "response_rate_limit", "max_active_faults")


def header_edits(owner: str, message: Json) -> HeaderEdits:
    """Those of what says where a body ends are passed over, and of what is between an answer's two ends, which Envoy takes out after them."""
    edits = HeaderEdits(
        _added(owner, message.get("request_headers_to_add", ()), FRAMING),
        _removed(message.get("request_headers_to_remove", ())),
        _added(owner, message.get("response_headers_to_add", ()), FRAMING | CONNECTION),
        _removed(message.get("response_headers_to_remove", ())),
    )
    return NO_EDITS if edits == NO_EDITS else edits


def _added(owner: str, options: Iterable[Json], passed_over: frozenset[bytes]) -> tuple[HeaderEdit, ...]:
    return tuple(edit for option in options if (edit := _edit(owner, option)).name not in passed_over)


def _removed(names: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(name for given in names if (name := given.lower().encode()) not in FRAMING)


def _edit(owner: str, option: Json) -> HeaderEdit:
    append = option.get("append_action", "APPEND_IF_EXISTS_OR_ADD")
    if option.get("append") is False:
        append = "OVERWRITE_IF_EXISTS_OR_ADD"
    if option["header"]["key"].startswith(":") or option["header"]["key"].lower() == "host":
        raise ConfigError(owner, ":-prefixed or host headers may not be modified")
    value = option["header"].get("value", "").encode()
    unknown = unknown_operator(value)
    if unknown is not None:
        raise ConfigError(owner, f"header {option['header']['key']}: operator {unknown.decode()} is not supported")
    return HeaderEdit(option["header"]["key"].lower().encode(), value, append, bool(option.get("keep_empty_value")))


def parse_route_table(table: Json, old: Json | None = None, before: RouteTable | None = None) -> RouteTable:
    """`before` is what `old` gave: its virtual hosts that did not change are taken over."""
    name = table.get("name", "")
    refuse(name, table, UNREAD_TABLE)
    filters = table.get("typed_per_filter_config", {})
    known = _known_hosts(old, before) if old and before and old.get("typed_per_filter_config", {}) == filters else {}
    hosts = tuple(
        known[host["name"]][1] if host["name"] in known and known[host["name"]][0] == host else _virtual_host(name, host, filters)
        for host in table.get("virtual_hosts", ())
    )
    domains = _domains(name, hosts)
    # Envoy tries suffix wildcards (*.x) longest first, then prefix wildcards (x.*) longest first; a `*` elsewhere is a plain character.
    wildcards = [(d, host) for d, host in domains.items() if d != b"*" and (d.startswith(b"*") or d.endswith(b"*"))]
    wildcards.sort(key=lambda pair: (not pair[0].startswith(b"*"), -len(pair[0])))
    special = {b"*", *(domain for domain, _ in wildcards)}
    return RouteTable(
        name,
        hosts,
        {domain: host for domain, host in domains.items() if domain not in special},
        tuple(wildcards),
        domains.get(b"*"),
        ignore_port_in_host=bool(table.get("ignore_port_in_host_matching")),
        edits=header_edits(name, table),
    )


def _known_hosts(old: Json, before: RouteTable) -> dict[str, tuple[Json, VirtualHost]]:
    return {host["name"]: (host, parsed) for host, parsed in zip(old.get("virtual_hosts", ()), before.virtual_hosts, strict=True)}


def _domains(table: str, hosts: tuple[VirtualHost, ...]) -> dict[bytes, VirtualHost]:
    out: dict[bytes, VirtualHost] = {}
    for host in hosts:
        for domain in host.domains:
            if domain in out:
                raise ConfigError(table, f"Only unique values for domains are permitted. Duplicate entry of domain {domain.decode()}")
            out[domain] = host
    return out


def _virtual_host(table: str, host: Json, table_filters: Json) -> VirtualHost:
    owner = f"{table}/{host['name']}"
    refuse(owner, host, UNREAD_HOST)
    shared = host.get("retry_policy")
    filters = {**table_filters, **host.get("typed_per_filter_config", {})}
    return VirtualHost(
        name=host["name"],
        domains=tuple(domain.lower().encode() for domain in host["domains"]),
        routes=tuple(_route(owner, route, shared, filters) for route in host.get("routes", ())),
        require_tls=host.get("require_tls", "NONE") != "NONE",
        include_attempt_count=bool(host.get("include_request_attempt_count")),
        edits=header_edits(owner, host),
    )


def _per_filter(where: str, filters: Json) -> Json:
    """Filter configurations of a route, virtual hosts' and tables' among them: the most specific one counts."""
    for name, config in filters.items():
        kind = config.get("@type", PER_ROUTE.get(name, "")).rpartition(".")[2]
        if name in PER_ROUTE and kind != PER_ROUTE[name]:
            raise ConfigError(where, f"per-route configuration of {name} as {kind} is not supported")
        if name not in PER_ROUTE and not name.startswith("istio."):
            raise ConfigError(where, f"per-route configuration of {name} is not supported")
    return filters


def _route(owner: str, route: Json, shared_retry: Json | None, filters: Json) -> Route:
    where = f"{owner}/{route.get('name', '')}"
    per_filter = _per_filter(where, {**filters, **route.get("typed_per_filter_config", {})})
    metadata = route.get("metadata", {}).get("filter_metadata", {})
    fault_id = metadata.get("devmesh", {}).get("fault", "")
    return Route(
        name=route.get("name", ""),
        match=route_match(where, route["match"]),
        action=_action(where, route, shared_retry),
        edits=header_edits(where, route),
        fault=parse_fault(where, per_filter[FAULT], fault_id) if FAULT in per_filter else None,
        cors=_cors(where, per_filter[CORS]) if CORS in per_filter else None,
        origin=metadata.get("istio", {}).get("config", ""),
        source=metadata.get("devmesh", {}).get("source", ""),
        operation=route.get("decorator", {}).get("operation", ""),
    )


def _action(where: str, route: Json, shared_retry: Json | None) -> RouteAction | RedirectAction | DirectResponseAction:
    if "route" in route:
        return _forward(where, route["route"], shared_retry)
    if "redirect" in route:
        return _redirect(where, route["redirect"])
    if "direct_response" in route:
        return DirectResponseAction(int(route["direct_response"]["status"]), _body(route["direct_response"].get("body", {})))
    if "non_forwarding_action" in route:
        raise ConfigError(where, "non_forwarding_action is not supported")
    raise ConfigError(where, "a route without an action")


def _body(source: Json) -> bytes:
    if "inline_bytes" in source:
        return base64.b64decode(source["inline_bytes"])
    return str(source.get("inline_string", "")).encode()


def _redirect(where: str, redirect: Json) -> RedirectAction:
    return RedirectAction(
        status=REDIRECT_CODES[redirect.get("response_code", "MOVED_PERMANENTLY")],
        host=_optional(redirect, "host_redirect"),
        path=_optional(redirect, "path_redirect"),
        prefix=_optional(redirect, "prefix_rewrite"),
        scheme=_optional(redirect, "scheme_redirect"),
        https=bool(redirect.get("https_redirect")),
        port=optional_number(redirect.get("port_redirect")),
        strip_query=bool(redirect.get("strip_query")),
        regex=_regex_rewrite(where, redirect.get("regex_rewrite")),
    )


def _optional(message: Json, key: str) -> bytes | None:
    value = message.get(key)
    return value.encode() if value else None


def _regex_rewrite(where: str, rewrite: Json | None) -> Callable[[bytes], bytes] | None:
    return None if rewrite is None else regex_rewrite(where, rewrite["pattern"]["regex"], rewrite.get("substitution", ""))


def _forward(where: str, action: Json, shared_retry: Json | None) -> RouteAction:
    clusters = _clusters(where, action)
    retry = action.get("retry_policy", shared_retry)
    refuse(where, action, UNREAD_ACTION, "route.")
    return RouteAction(
        clusters=clusters,
        total_weight=sum(cluster.weight for cluster in clusters),
        timeout=limit(action.get("timeout"), DEFAULT_ROUTE_TIMEOUT),
        idle_timeout=limit(action.get("idle_timeout"), None),
        max_stream_duration=limit(action.get("max_stream_duration", {}).get("max_stream_duration"), None),
        retry=_retry(where, retry) if retry else None,
        prefix_rewrite=_optional(action, "prefix_rewrite"),
        regex_rewrite=_regex_rewrite(where, action.get("regex_rewrite")),
        host_rewrite=_optional(action, "host_rewrite_literal"),
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
    if "weighted_clusters" not in action:
        raise ConfigError(where, f"route action {sorted(action)} names no cluster")
    clusters = tuple(_weighted(where, cluster) for cluster in action["weighted_clusters"]["clusters"])
    if not sum(cluster.weight for cluster in clusters):
        raise ConfigError(where, "Sum of weights in the weighted_cluster must be greater than 0.")
    return clusters


def _weighted(where: str, cluster: Json) -> WeightedCluster:
    refuse(where, cluster, ("cluster_header", "metadata_match", "typed_per_filter_config"), "weighted_clusters.")
    edits = header_edits(where, cluster)
    return WeightedCluster(cluster["name"], int(cluster.get("weight", 0)), edits, _optional(cluster, "host_rewrite_literal"))


def _mirror(mirror: Json) -> Mirror:
    share = mirror.get("runtime_fraction")
    return Mirror(mirror["cluster"], fraction(share["default_value"]) if share else 1.0)


def _retry(where: str, retry: Json) -> RetryPolicy:
    refuse(where, retry, UNREAD_RETRY, "retry_policy.")
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
        refuse(where, policy["header"], ("regex_rewrite",), "hash_policy.header.")
        return HashPolicy("header", policy["header"]["header_name"].lower().encode(), terminal=terminal)
    if "cookie" in policy:
        cookie = policy["cookie"]
        attributes = b"".join(_cookie_attribute(attribute) for attribute in cookie.get("attributes", ()))
        ttl, path = seconds(cookie.get("ttl")), cookie.get("path", "").encode()
        return HashPolicy("cookie", cookie["name"].encode(), ttl, path, terminal, attributes)
    if "connection_properties" in policy:
        return HashPolicy("source_ip", b"", terminal=terminal)
    if "query_parameter" in policy:
        return HashPolicy("query", policy["query_parameter"]["name"].encode(), terminal=terminal)
    raise ConfigError(where, f"hash policy {sorted(policy)} is not supported")


def _cookie_attribute(attribute: Json) -> bytes:
    value = attribute.get("value", "")
    return f"; {attribute['name']}={value}".encode() if value else f"; {attribute['name']}".encode()


def parse_fault(where: str, fault: Json, fault_id: str = "") -> FaultPolicy:
    delay, abort = fault.get("delay", {}), fault.get("abort", {})
    refuse(where, fault, UNREAD_FAULT, "fault.")
    for part, name in ((delay, "header_delay"), (abort, "header_abort")):
        if name in part:
            raise ConfigError(where, f"fault.{name} is not supported")
    return FaultPolicy(
        delay=seconds(delay.get("fixed_delay")),
        delay_fraction=fraction(delay.get("percentage")),
        abort_status=optional_number(abort.get("http_status")),
        abort_grpc_status=optional_number(abort.get("grpc_status")),
        abort_fraction=fraction(abort.get("percentage")),
        headers=tuple(header_matcher(where, m) for m in fault.get("headers", ())),
        fault_id=fault_id,
    )


def _cors(where: str, policy: Json) -> CorsPolicy | None:
    """None when `filter_enabled` switches the policy off, which is how Istio writes a route without one."""
    if "filter_enabled" in policy:
        share = fraction(policy["filter_enabled"].get("default_value"))
        if share == 0.0:
            return None
        if share < 1.0:
            raise ConfigError(where, "cors.filter_enabled for a part of the requests is not supported")
    refuse(where, policy, ("allow_private_network_access",), "cors.")
    return CorsPolicy(
        allow_origin=tuple(string_predicate(where, m) for m in policy.get("allow_origin_string_match", ())),
        allow_methods=policy.get("allow_methods", "").encode(),
        allow_headers=policy.get("allow_headers", "").encode(),
        expose_headers=policy.get("expose_headers", "").encode(),
        max_age=policy.get("max_age", "").encode(),
        allow_credentials=bool(policy.get("allow_credentials")),
        forward_not_matching_preflights=bool(policy.get("forward_not_matching_preflights", True)),
    )
