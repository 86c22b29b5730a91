"""Listeners and filter chains: outbound by port or VIP, virtualOutbound, virtualInbound, a gateway's servers."""

from __future__ import annotations

from typing import Any

from devmesh.compiler.conflicts import EVERY_ADDRESS, SNIFFED, Entry, add
from devmesh.compiler.downstream_tls import server_tls
from devmesh.compiler.gateways import GatewayServer, MergedServers
from devmesh.compiler.inspectors import inspectors
from devmesh.compiler.l4 import gateway_tcp_filter, gateway_tls_chains, outbound_chains
from devmesh.compiler.security import downstream_tls, mtls_mode, ports_of_their_own
from devmesh.compiler.shared import TLS_INSPECTOR, TYPE, Json, ads, http_manager, said_at, server_names, socket_address, tcp_proxy
from devmesh.compiler.tables import Tables
from devmesh.compiler.world import World
from devmesh.config.model import SourcePosition
from devmesh.config.topology_types import Service, ServicePort, Workload

ISTIO_HTTP_ALPN = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
ALL_ISTIO_ALPN = ["istio", "istio-peer-exchange", *ISTIO_HTTP_ALPN]
ORIGINAL_DST = {
    "name": "envoy.filters.listener.original_dst",
    "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
}


class Listeners:
    def __init__(self, world: World, proxy: Workload, tables: Tables) -> None:
        self.world, self.proxy, self.tables = world, proxy, tables

    def _manager(self, prefix: str, routes: Json, **more: Any) -> Json:
        settings = self.world.settings
        return http_manager(prefix, routes, settings.tracing_sampling if settings.enable_tracing else None, **more)

    # -- outbound --------------------------------------------------------------------------------------------------

    def outbound(self) -> list[Json]:
        entries: dict[str, Entry] = {}
        for service in self.world.services(self.proxy.namespace):
            for port in service.ports:
                add(entries, self._entry(service, port), port)
        by_port = [entry for entry in entries.values() if entry.address == EVERY_ADDRESS]
        by_address = [entry for entry in entries.values() if entry.address != EVERY_ADDRESS]
        return [*(one.listener(self._passthrough_chain()) for one in (*by_port, *by_address)), self._virtual_outbound()]

    def _entry(self, service: Service, port: ServicePort) -> Entry:
        """HTTP is told apart by its names, so at every address; so is of the rest what has no single address, by range, by SNI or alone at its port."""
        if port.protocol in ("http", "http2"):
            return Entry(EVERY_ADDRESS, port.port, "http" if port.is_http_proxy else "auto", self._http_chains_out(port))
        address = service.cluster_ip if service.cluster_ip and "/" not in service.cluster_ip else EVERY_ADDRESS
        chains = outbound_chains(self.world, self.proxy, service, port)
        if port.protocol == "auto":
            chains.append(self._sniffed_chain(f"outbound_{address}_{port.port};", f"{service.hostname}:{port.port}"))
            return Entry(address, port.port, "auto", chains)
        return Entry(address, port.port, port.server_first or "tcp", chains)

    def _http_chains_out(self, port: ServicePort) -> list[Json]:
        chain = self._sniffed_chain(f"outbound_{EVERY_ADDRESS}_{port.port};", str(port.port))
        if port.is_http_proxy:  # taken at its word
            del chain["filter_chain_match"]
        return [chain]

    def _sniffed_chain(self, prefix: str, table: str) -> Json:
        """For plaintext that http_inspector took for HTTP."""
        return {
            "filter_chain_match": {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]},
            "filters": [self._manager(prefix, {"rds": {"config_source": ads(), "route_config_name": table}})],
            "transport_socket_connect_timeout": "15s",
        }

    def _passthrough_cluster(self) -> str:
        return "BlackHoleCluster" if self.world.settings.outbound_traffic_policy == "REGISTRY_ONLY" else "PassthroughCluster"

    def _passthrough_chain(self) -> Json:
        name = self._passthrough_cluster()
        return {"filter_chain_match": {}, "filters": [tcp_proxy(name, name)], "name": "PassthroughFilterChain"}

    def _virtual_outbound(self) -> Json:
        name = self._passthrough_cluster()
        catch_all = "virtualOutbound-catchall-tcp"
        return {
            "name": "virtualOutbound",
            "address": socket_address("0.0.0.0", 15001),
            "filter_chains": [
                {
                    "filter_chain_match": {"destination_port": 15001},
                    "filters": [tcp_proxy("BlackHoleCluster", "BlackHoleCluster")],
                    "name": "virtualOutbound-blackhole",
                },
                {"filters": [tcp_proxy(name, name)], "name": catch_all},
            ],
            "use_original_dst": True,
            "traffic_direction": "OUTBOUND",
            "max_connections_to_accept_per_socket_event": 1,
        }

    # -- inbound ---------------------------------------------------------------------------------------------------

    def inbound(self) -> Json:
        served: dict[int, tuple[Service, ServicePort]] = {}
        for service, port in self.world.ports_of(self.proxy):
            served.setdefault(port.target_port, (service, port))
        chains = [
            {
                "filter_chain_match": {"destination_port": 15006},
                "filters": [tcp_proxy("BlackHoleCluster", "BlackHoleCluster")],
                "name": "virtualInbound-blackhole",
            },
            *self._passthrough_chains(0),
        ]
        named = [number for number in ports_of_their_own(self.world, self.proxy) if number not in served]
        for number in named:
            chains += self._passthrough_chains(number)
        for _, (service, port) in sorted(served.items()):
            chains += self._service_chains(service, port)
        return {
            "name": "virtualInbound",
            "address": socket_address("0.0.0.0", 15006),
            "filter_chains": chains,
            "listener_filters": [ORIGINAL_DST, *inspectors(chains)],
            **SNIFFED,
            "traffic_direction": "INBOUND",
            "max_connections_to_accept_per_socket_event": 1,
        }

    def _inbound_manager(self, prefix: str, service: Service | None, port: ServicePort | None) -> Json:
        return self._manager(
            prefix,
            {"route_config": self.tables.inbound(service, port)},
            server_name="istio-envoy",
            forward_client_cert_details="APPEND_FORWARD",
            set_current_client_cert_details={"subject": True, "dns": True, "uri": True},
            **({"http2_protocol_options": {}} if port is not None and port.protocol == "http2" else {}),
        )

    def _passthrough_chains(self, port: int) -> list[Json]:
        """What reaches no service's port; `port` 0 is every other."""
        mode = mtls_mode(self.world, self.proxy, port)
        http = self._inbound_manager("InboundPassthroughCluster;", None, None)
        tcp = tcp_proxy("InboundPassthroughCluster", "InboundPassthroughCluster")
        chains: list[Json] = []
        if mode != "DISABLE":
            chains.append(
                _chain(
                    {"transport_protocol": "tls", "application_protocols": ISTIO_HTTP_ALPN},
                    http,
                    "virtualInbound-catchall-http",
                    ["h2", "http/1.1"],
                )
            )
        if mode != "STRICT":
            chains.append(
                _chain(
                    {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]},
                    http,
                    "virtualInbound-catchall-http",
                    None,
                )
            )
        if mode == "STRICT":
            chains.append(_chain({"transport_protocol": "tls"}, tcp, "virtualInbound", ["istio-peer-exchange", "h2", "http/1.1"]))
        elif mode == "PERMISSIVE":
            match = {"transport_protocol": "tls", "application_protocols": ["istio-peer-exchange", "istio"]}
            chains.append(_chain(match, tcp, "virtualInbound", ["istio-peer-exchange", "h2", "http/1.1"]))
        if mode != "STRICT":
            chains.append(_chain({"transport_protocol": "raw_buffer"}, tcp, "virtualInbound", None))
        if mode == "PERMISSIVE":
            chains.append(_chain({"transport_protocol": "tls"}, tcp, "virtualInbound", None))
        for chain in chains if port else ():
            chain["filter_chain_match"]["destination_port"] = port
        return chains

    def _service_chains(self, service: Service, port: ServicePort) -> list[Json]:
        mode = mtls_mode(self.world, self.proxy, port.target_port)
        if port.protocol in ("http", "http2"):
            return self._http_chains(service, port, mode)
        name = f"inbound|{port.target_port}||"
        tcp = tcp_proxy(name, name)
        label = f"0.0.0.0_{port.target_port}"
        chains: list[Json] = []
        sniffed = port.protocol == "auto"
        http = self._inbound_manager(f"inbound_0.0.0.0_{port.target_port};", service, port) if sniffed else tcp
        if mode != "DISABLE":
            if sniffed:
                chains.append(_chain(_port_match(port, "tls", ISTIO_HTTP_ALPN), http, label, ["h2", "http/1.1"]))
            alpn = ["istio-peer-exchange", "istio"] if mode == "PERMISSIVE" else None
            if sniffed and mode != "STRICT":
                chains.append(_chain(_port_match(port, "raw_buffer", ["http/1.1", "h2c"]), http, label, None))
            if not sniffed and alpn:
                alpn = ALL_ISTIO_ALPN
            chains.append(_chain(_port_match(port, "tls", alpn), tcp, label, ["istio-peer-exchange", "h2", "http/1.1"]))
        elif sniffed:
            chains.append(_chain(_port_match(port, "raw_buffer", ["http/1.1", "h2c"]), http, label, None))
        plain = ["raw_buffer"] if mode != "STRICT" else []
        one_way = ["tls"] if mode == "PERMISSIVE" else []
        for transport in plain + one_way if sniffed else one_way + plain:
            chains.append(_chain(_port_match(port, transport, None), tcp, label, None))
        return chains

    def _http_chains(self, service: Service, port: ServicePort, mode: str) -> list[Json]:
        prefix = f"inbound_0.0.0.0_{port.target_port};"
        name = f"0.0.0.0_{port.target_port}"
        manager = self._inbound_manager(prefix, service, port)
        chains = []
        if mode == "PERMISSIVE":
            chains.append(_chain(_port_match(port, "tls", ALL_ISTIO_ALPN), manager, name, ["h2", "http/1.1"]))
        elif mode == "STRICT":
            chains.append(_chain(_port_match(port, "tls", None), manager, name, ["h2", "http/1.1"]))
        if mode != "STRICT":
            chains.append(_chain(_port_match(port, "raw_buffer", None), manager, name, None))
        return chains

    # -- gateway ---------------------------------------------------------------------------------------------------

    def gateway(self, merged: MergedServers) -> list[Json]:
        """A listener for every port with something to do: a TCP or PASSTHROUGH server without a route opens none."""
        built = [self._gateway_listener(port, merged) for port in merged.chains]
        return [listener for listener in built if listener["filter_chains"]]

    def _gateway_listener(self, port: int, merged: MergedServers) -> Json:
        chains: list[Json] = []
        passed: set[str] = set()
        for one in merged.servers(port):
            if one.is_http:
                chains.append(self._gateway_http_chain(one))
            elif one.is_auto_passthrough:
                continue  # check_gateway says so
            elif one.is_passthrough:
                chains += gateway_tls_chains(self.world, self.proxy, one, passed)
            else:
                chains += self._gateway_tcp_chain(one)
        inspected = any(one.protocol in ("HTTPS", "TLS") for one in merged.servers(port))
        return {
            "name": f"0.0.0.0_{port}",
            "address": socket_address("0.0.0.0", port),
            "filter_chains": chains,
            **({"listener_filters": [TLS_INSPECTOR]} if inspected else {}),
            "traffic_direction": "OUTBOUND",
            "max_connections_to_accept_per_socket_event": 1,
        }

    def _gateway_http_chain(self, one: GatewayServer) -> Json:
        manager = self._manager(
            (one.server.name if one.terminates_tls else "") or f"outbound_0.0.0.0_{one.port};",
            {"rds": {"config_source": ads(), "route_config_name": one.table}},
            http_protocol_options={},
            server_name="istio-envoy",
            use_remote_address=True,
            forward_client_cert_details="SANITIZE_SET",
            set_current_client_cert_details={"subject": True, "cert": True, "dns": True, "uri": True},
        )
        return _server_chain(one, manager, one.source)

    def _gateway_tcp_chain(self, one: GatewayServer) -> list[Json]:
        found = gateway_tcp_filter(self.world, self.proxy, one)
        return [_server_chain(one, *found)] if found is not None else []


def _server_chain(one: GatewayServer, network: Json, source: SourcePosition) -> Json:
    chain: Json = {"filters": [network], "metadata": {"filter_metadata": said_at(source)}, "transport_socket_connect_timeout": "15s"}
    if one.terminates_tls and one.server.tls is not None:
        chain["transport_socket"] = server_tls(one.server.tls, http=one.is_http)
        chain |= server_names(one.hosts)
    return chain


def _port_match(port: ServicePort, transport: str, protocols: list[str] | None) -> Json:
    match: Json = {"destination_port": port.target_port, "transport_protocol": transport}
    return match | ({"application_protocols": protocols} if protocols else {})


def _chain(match: Json, network: Json, name: str, alpn: list[str] | None) -> Json:
    """`alpn` given: the chain terminates mTLS and offers these."""
    chain: Json = {"filter_chain_match": match, "filters": [network]}
    if alpn is not None:
        chain["transport_socket"] = downstream_tls(alpn)
    return chain | {"name": name}
