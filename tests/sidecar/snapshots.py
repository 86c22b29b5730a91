"""Small snapshots for tests: one listener, one route table, what a row adds to them."""

from __future__ import annotations

from typing import Any

from devmesh.sidecar.config import ConfigError, HttpManager, ProxyConfig, Route, RouteTable
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.message import RequestHead

Json = dict[str, Any]
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {}}


def cluster(name: str, endpoints: tuple[tuple[str, int], ...] = (), **fields: Any) -> Json:
    hosts = [{"endpoint": {"address": {"socket_address": {"address": a, "port_value": p}}}} for a, p in endpoints]
    return {"name": name, "type": "STATIC", "load_assignment": {"endpoints": [{"lb_endpoints": hosts}]}, **fields}


def route(match: Json | None = None, name: str = "r", **fields: Any) -> Json:
    action = {} if fields.keys() & {"redirect", "direct_response", "non_forwarding_action"} else {"route": {"cluster": "c"}}
    return {"name": name, "match": match or {"prefix": "/"}, **action, **fields}


def host(*routes: Json, domains: tuple[str, ...] = ("*",), name: str = "v", **fields: Any) -> Json:
    return {"name": name, "domains": list(domains), "routes": list(routes) or [route()], **fields}


def table(*hosts: Json, **fields: Any) -> Json:
    return {"name": "t", "virtual_hosts": list(hosts) or [host()], **fields}


def manager(**fields: Any) -> Json:
    return {"stat_prefix": "m", "route_config": table(), "http_filters": [ROUTER], **fields}


def http_chain(**fields: Any) -> Json:
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager(**fields)}]}


def listener(*chains: Json, **fields: Any) -> Json:
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 15001}}
    return {"name": "l", "address": address, "filter_chains": list(chains) or [http_chain()], **fields}


def parsed(**parts: Any) -> ProxyConfig:
    return parse_snapshot({"version": "1", **parts})


def parsed_table(*hosts: Json, **fields: Any) -> RouteTable:
    return parsed(routes=[table(*hosts, **fields)]).routes["t"]


def parsed_route(**fields: Any) -> Route:
    return parsed_table(host(route(**fields))).virtual_hosts[0].routes[0]


def parsed_manager(**fields: Any) -> HttpManager:
    network = parsed(listeners=[listener(http_chain(**fields))]).listeners["l"].chains[0].network
    assert isinstance(network, HttpManager)
    return network


def refusal(**parts: Any) -> str:
    """What the NACK of such a snapshot says; empty when it is accepted."""
    try:
        parsed(**parts)
    except ConfigError as error:
        return str(error)
    return ""


def head(target: str = "/", *headers: tuple[str, str], method: str = "GET", authority: str = "reviews:9080") -> RequestHead:
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    return RequestHead(method.encode(), target.encode(), authority.encode(), [(b"host", authority.encode()), *pairs])
