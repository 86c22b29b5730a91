"""The inspectors of an inbound listener: switched off wherever no filter chain of a port asks for what they find (istiod's populateListenerFilters)."""

from __future__ import annotations

from collections.abc import Iterable

from devmesh.compiler.shared import HTTP_INSPECTOR, TLS_INSPECTOR, Json

PLAIN_HTTP = frozenset(("http/1.1", "h2c"))


def inspectors(chains: Iterable[Json]) -> list[Json]:
    """TLS first: what it takes for TLS, the HTTP inspector leaves alone. Port 0 is every port without chains of its own."""
    tls: dict[int, bool] = {}
    http: dict[int, bool] = {}
    for chain in chains:
        match = chain["filter_chain_match"]
        port = match.get("destination_port", 0)
        tls[port] = tls.get(port, False) or match.get("transport_protocol") == "tls"
        http[port] = http.get(port, False) or not PLAIN_HTTP.isdisjoint(match.get("application_protocols", ()))
    return [*([_tls(tls)] if any(tls.values()) else []), *([_http(http)] if any(http.values()) else [])]


def _tls(needed: dict[int, bool]) -> Json:
    """Off at some ports where every other has it, else on at some."""
    everywhere = needed.get(0, False)
    ports = sorted(port for port, needs in needed.items() if port and needs != everywhere)
    if not ports:
        return TLS_INSPECTOR
    return {**TLS_INSPECTOR, "filter_disabled": _at(ports) if everywhere else {"not_match": _at(ports)}}


def _http(needed: dict[int, bool]) -> Json:
    ports = sorted(port for port, needs in needed.items() if not needs)
    return {**HTTP_INSPECTOR, "filter_disabled": _at(ports)} if ports else HTTP_INSPECTOR


def _at(ports: list[int]) -> Json:
    """A ListenerFilterChainMatchPredicate for these ports."""
    rules = [{"destination_port_range": {**({"start": port} if port else {}), "end": port + 1}} for port in ports]
    return {"or_match": {"rules": rules}} if len(rules) > 1 else rules[0]
