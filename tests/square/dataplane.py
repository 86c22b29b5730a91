"""The rows of the square: our sidecar and a stock Envoy, each configured by one workload's xDS of either compiler.

Both run the listeners as they are, with mTLS. Neither needs a redirect: Envoy learns the original destination from a PROXY header, our
sidecar from a proxy request (outbound) or from the address it was bound for (inbound, gateway). Only addresses change, to loopback ones,
and secrets are written in.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from devmesh.config.topology import Workload
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.record import Direction
from tests.pods.harness import OnePod, connect_inside
from tests.sidecar.sidecars import Records
from tests.square.apps import PORTS, Places
from tests.square.certificates import Certificates
from tests.square.client import CLIENT, Answer, Request, Way, ask
from tests.square.compilers import topology
from tests.support.require import envoy as envoy_binary

Json = dict[str, Any]
Xds = dict[str, list[Json]]
GATEWAY_PORTS = (8080, 8081, 8443, 31400)
# What istiod adds for Istio's own Envoy build, or that only says where configuration comes from.
ISTIO_ONLY = ("istio.", "envoy.filters.http.grpc_stats")
# The original destination, as a redirected socket would tell it.
PROXY_PROTOCOL = {
    "name": "envoy.filters.listener.proxy_protocol",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
}
OUTSIDE = "203.0.113.7"  # what a resolver would say of a name outside the mesh (RFC 5737)
VIPS = {name: service.cluster_ip for service in topology().services for name in (service.name, service.hostname)}


@dataclass(frozen=True)
class Place:
    """Whose configuration it is, and which world is around it."""

    workload: Workload
    places: Places
    certificates: Certificates
    direction: Direction = Direction.OUTBOUND

    def original(self, request: Request) -> tuple[str, int]:
        """Where the request's connection was going: a VIP, or the workload's own address."""
        ip = VIPS.get(request.host, OUTSIDE) if self.direction is Direction.OUTBOUND and not self.workload.gateway else self.workload.ip
        return self.places.of.get(ip, ip), request.port

    def moved(self, xds: Xds) -> Xds:
        """The addresses of the topology become loopback addresses."""
        text = json.dumps(xds)
        for known, place in self.places.of.items():
            text = text.replace(f'"{known}"', f'"{place}"')
        out: Xds = json.loads(self.certificates.files(text))
        return out


def workload(name: str) -> Workload:
    return next(one for one in topology().workloads if one.name == name)


# -- our sidecar -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def our_sidecar(
    xds: Xds, place: Place, records: Records | None = None, pod: OnePod | None = None
) -> AsyncIterator[Callable[[Request], Way]]:
    """With a pod, outbound connections are made in it and redirected by the kernel."""
    own = place.workload
    names = [{"table": {s.hostname: {"ips": [s.cluster_ip], "shortname": s.name, "namespace": s.namespace} for s in topology().services}}]
    proxy = Proxy(spiffe_id=own.spiffe_id, gateway=own.gateway, telemetry=records)
    secrets = place.certificates.snapshot(own.spiffe_id) + (place.certificates.credentials() if own.gateway else [])
    proxy.apply(parse_snapshot({**place.moved({**xds, "names": names}), "secrets": secrets}))
    ports = {}
    if pod is not None:
        sock = pod.sockets("virtual_outbound").dup()
        await proxy.listen([SocketSpec("virtual_outbound", *sock.getsockname(), sock)])
    elif place.direction is Direction.OUTBOUND and not own.gateway:
        sock = _bound()
        ports["outbound"] = sock.getsockname()[1]
        await proxy.listen([SocketSpec("outbound", "127.0.0.1", ports["outbound"], sock)])
    else:
        for port in (*PORTS, *GATEWAY_PORTS):
            sock = _bound()
            ports[port] = sock.getsockname()[1]
            await proxy.listen([SocketSpec("inbound", "127.0.0.1", ports[port], sock, original=(place.places.of[own.ip], port))])

    def way(request: Request) -> Way:
        if pod is not None:
            return Way(0, redirected=partial(connect_inside, pod.init_pid, place.original(request)))
        return Way(ports["outbound"], absolute=True) if "outbound" in ports else Way(ports[request.port])

    try:
        yield way
    finally:
        await proxy.close()


def _bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


# -- Envoy -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def envoy(xds: Xds, place: Place, directory: Path, access_log: tuple[Json, ...] = ()) -> AsyncIterator[Callable[[Request], Way]]:
    """Ready when its admin says so; it chooses its ports itself, so that nobody can take one first."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "envoy.json"
    config.write_text(json.dumps(envoy_bootstrap(xds, place, access_log)))
    admin = directory / "admin"
    log = (directory / "envoy.log").open("wb")
    process = subprocess.Popen(
        [str(envoy_binary()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "warning", "--admin-address-path", str(admin)],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        await _envoy_ready(process, admin, directory / "envoy.log")
        ports = await _envoy_ports(admin)

        def way(request: Request) -> Way:
            if place.workload.gateway:
                return Way(ports[f"0.0.0.0_{request.port}"])
            ip, port = place.original(request)
            preamble = f"PROXY TCP4 {CLIENT} {ip} 40000 {port}\r\n".encode()
            if place.direction is Direction.INBOUND:
                return Way(ports["virtualInbound"], preamble)
            # What `use_original_dst` of virtualOutbound does for a redirected connection.
            found = (f"{VIPS.get(request.host, OUTSIDE)}_{port}", f"0.0.0.0_{port}", "virtualOutbound")
            return Way(next(ports[name] for name in found if name in ports), preamble)

        yield way
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def envoy_bootstrap(xds: Xds, place: Place, access_log: tuple[Json, ...] = ()) -> Json:
    """Static resources of a stock Envoy, whose HTTP managers log as told."""
    xds = place.moved(xds)
    routes = {r["name"]: r for r in xds["routes"]}
    assignments = {e["cluster_name"]: e for e in xds["endpoints"]}
    inbound = place.direction is Direction.INBOUND
    listeners = [_envoy_listener(one, routes, access_log) for one in xds["listeners"] if (one["traffic_direction"] == "INBOUND") is inbound]
    clusters = [_envoy_cluster(c, assignments) for c in xds["clusters"]]
    return {
        "node": {"id": "square", "cluster": "square"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": place.certificates.inline({"listeners": listeners, "clusters": clusters}, place.workload.spiffe_id),
    }


def _envoy_listener(listener: Json, routes: Json, access_log: tuple[Json, ...]) -> Json:
    out = copy.deepcopy(listener)
    out.pop("access_log", None)
    # Bound in any case: original_dst, which hands connections on, would put this machine's own answer over the PROXY header's.
    out["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    redirected = out.pop("bind_to_port", True) is False or out["name"] in ("virtualOutbound", "virtualInbound")
    out.pop("use_original_dst", None)
    others = [one for one in out.get("listener_filters", ()) if not one["name"].endswith("original_dst")]
    out["listener_filters"] = [PROXY_PROTOCOL, *others] if redirected else others
    for manager in _http_managers(out):
        manager["access_log"] = list(access_log)
        manager.pop("tracing", None)
        manager["http_filters"] = [f for f in manager["http_filters"] if not f["name"].startswith(ISTIO_ONLY)]
        if "rds" in manager:
            manager["route_config"] = {**routes[manager.pop("rds")["route_config_name"]], "validate_clusters": False}
    return out


def _http_managers(listener: Json) -> list[Json]:
    chains = listener.get("filter_chains", []) + ([listener["default_filter_chain"]] if "default_filter_chain" in listener else [])
    return [f["typed_config"] for c in chains for f in c["filters"] if f["name"].endswith("http_connection_manager")]


def _envoy_cluster(cluster: Json, assignments: Json) -> Json:
    out = copy.deepcopy(cluster)
    out.pop("filters", None)
    if out.get("type") == "EDS":
        out.pop("eds_cluster_config")
        out["type"] = "STATIC"
        out["load_assignment"] = {**assignments.get(out["name"], {}), "cluster_name": out["name"]}
    return out


async def _envoy_ready(process: subprocess.Popen[bytes], admin: Path, log: Path) -> None:
    while process.poll() is None:
        if admin.exists() and ":" in admin.read_text():
            with contextlib.suppress(OSError):
                if (await _admin(admin, "/ready")).status == 200:
                    return
        await asyncio.sleep(0.01)
    raise AssertionError(f"Envoy refused the configuration: {log.read_text()[-2000:]}")


async def _admin(admin: Path, path: str) -> Answer:
    return await ask(Way(int(admin.read_text().rpartition(":")[2])), Request("GET", f"http://localhost{path}"))


async def _envoy_ports(admin: Path) -> dict[str, int]:
    found = json.loads((await _admin(admin, "/listeners?format=json")).body)["listener_statuses"]
    return {
        one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found if one["local_address"].get("socket_address")
    }
