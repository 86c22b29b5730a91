"""Services that share an outbound listener: whose filter chains it has (istiod's buildSidecarOutboundListener and mergeTCPFilterChains)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from devmesh.compiler.shared import HTTP_INSPECTOR, TLS_INSPECTOR, Json, socket_address
from devmesh.config.topology_types import ServicePort

EVERY_ADDRESS = "0.0.0.0"
SNIFFED = {"listener_filters_timeout": "0s", "continue_on_listener_filters_timeout": True}


@dataclass(slots=True)
class Entry:
    """One listener to be. `protocol` is "http" (never sniffed), "auto" (sniffed), "tcp", or one in which servers speak first."""

    address: str
    port: int
    protocol: str
    chains: list[Json]

    @property
    def name(self) -> str:
        return f"{self.address}_{self.port}"

    def listener(self, passthrough: Json) -> Json:
        """What no chain takes goes to the one that asks for nothing, else to `passthrough`."""
        matching = [chain for chain in self.chains if "filter_chain_match" in chain]
        rest = [chain for chain in self.chains if "filter_chain_match" not in chain]
        by_name = any("server_names" in chain["filter_chain_match"] for chain in matching)
        sniffed = any("application_protocols" in chain["filter_chain_match"] for chain in matching)
        filters = [*([TLS_INSPECTOR] if by_name else []), *([HTTP_INSPECTOR] if sniffed else [])]
        return {
            "name": self.name,
            "address": socket_address(self.address, self.port),
            "filter_chains": matching or rest,
            **({"default_filter_chain": (rest or [passthrough])[-1]} if matching else {}),
            **({"listener_filters": filters} if filters else {}),
            **SNIFFED,
            "traffic_direction": "OUTBOUND",
            "bind_to_port": False,
        }


def add(entries: dict[str, Entry], new: Entry, port: ServicePort) -> None:
    """The first service of a listener keeps what two ask for in the same words."""
    known = entries.get(new.name)
    if known is None or port.is_http_proxy:
        entries[new.name] = new
        return
    below_http = new.protocol not in ("http", "auto")
    if not below_http and known.protocol in ("http", "auto"):
        return  # HTTP is told apart in the route table
    if {known.protocol, new.protocol} & {"mongo", "mysql"} and known.protocol != new.protocol:
        return  # a listener that waits for the client's first bytes would keep their clients waiting
    known.chains = [*known.chains, *(chain for chain in new.chains if not any(_same(chain, one) for one in known.chains))]
    if (known.protocol == "http") or not below_http:
        known.protocol = "auto"


def _same(one: Json, other: Json) -> bool:
    return _asked(one) == _asked(other)


def _asked(chain: Json) -> tuple[object, ...]:
    match = chain.get("filter_chain_match", {})
    ranges = {ip_network(f"{one['address_prefix']}/{one['prefix_len']}", strict=False) for one in match.get("prefix_ranges", ())}
    return match.get("transport_protocol"), tuple(match.get("application_protocols", ())), set(match.get("server_names", ())), ranges
