"""The rows of the square: run one request table through Envoy or through our sidecar, configured by either compiler's output.

Both get the outbound half of one workload's configuration. Neither needs a redirect: Envoy's `0.0.0.0_<port>` listeners get loopback
ports, our sidecar gets proxy requests; endpoints become loopback ports of echo servers, one a workload.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Xds = dict[str, list[dict[str, Any]]]
# What istiod adds for Istio's own Envoy build, or that only says where configuration comes from.
ISTIO_ONLY = ("istio.", "envoy.filters.http.grpc_stats")
# Response headers that differ by clock or chance, how an empty answer to HEAD is framed (RFC 9110 section
# 9.3.2 leaves it open), and whether a connection outlives a reply that overtook its request body.
VOLATILE = frozenset({"date", "x-envoy-upstream-service-time", "x-request-id", "transfer-encoding", "connection"})
# Request headers that differ by chance, or that only one of the two sends (docs/differences.md).
VOLATILE_REQUEST = frozenset(
    {
        "x-request-id", "grpc-timeout", "traceparent", "tracestate", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-envoy-expected-rq-timeout-ms",
        "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-parentspanid", "content-length", "host-port",
    }
)  # fmt: skip


@dataclass
class Answer:
    """What the caller saw and what the app that answered saw."""

    status: int
    headers: dict[str, str]
    body: str
    reached: str = ""
    app_saw: dict[str, Any] = field(default_factory=dict)

    def comparable(self) -> dict[str, Any]:
        seen = dict(self.app_saw)
        headers = {k: v for k, v in self.headers.items() if k not in VOLATILE and k != "content-length"}
        if self.reached:
            return {"status": self.status, "headers": headers, "app": {k: v for k, v in seen.items() if k != "workload"}}
        return {"status": self.status, "headers": headers, "body": self.body}


class Echo:
    """One workload's app: says what it got, `/status/N` answers N."""

    def __init__(self, workload: str) -> None:
        self.workload = workload
        self.hits: list[dict[str, Any]] = []
        self.server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Close what is open too, so that no handler is left to be cancelled."""
        assert self.server is not None
        self.server.close()
        while self._open:
            writer = self._open.pop()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                pairs = [line.partition(": ") for line in lines[1:] if line]
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                seen = {
                    "workload": self.workload,
                    "method": method,
                    "target": target,
                    "headers": {k: v for k, v in headers.items() if k not in VOLATILE_REQUEST},
                    "body": body.decode(),
                }
                self.hits.append(seen)
                status = int(target.split("/status/")[1][:3]) if "/status/" in target else 200
                payload = b"" if method == "HEAD" else json.dumps(seen).encode()
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(payload)}\r\nx-app: {self.workload}\r\n\r\n".encode() + payload)
                await writer.drain()
        self._open.discard(writer)
        writer.close()


def plain(xds: Xds, addresses: dict[str, int]) -> Xds:
    """The outbound half without TLS, with endpoints at the echo servers: {workload IP: loopback port}."""
    out = copy.deepcopy(xds)
    assignments = {e["cluster_name"]: e for e in out["endpoints"]}
    for assignment in assignments.values():
        for locality in assignment.get("endpoints", []):
            for host in locality.get("lb_endpoints", []):
                address = host["endpoint"]["address"]["socket_address"]
                address["port_value"] = addresses[address["address"]]
                address["address"] = "127.0.0.1"
                host.get("metadata", {}).get("filter_metadata", {}).pop("envoy.transport_socket_match", None)
    for cluster in out["clusters"]:
        cluster.pop("transport_socket_matches", None)
        cluster.pop("transport_socket", None)
    return out


def _http_managers(listener: dict[str, Any]) -> list[dict[str, Any]]:
    chains = listener.get("filter_chains", []) + ([listener["default_filter_chain"]] if "default_filter_chain" in listener else [])
    return [f["typed_config"] for c in chains for f in c["filters"] if f["name"].endswith("http_connection_manager")]


def envoy_bootstrap(xds: Xds) -> dict[str, Any]:
    """Static resources of a stock Envoy; it chooses its listeners' loopback ports itself, so that nobody can take one first."""
    routes = {r["name"]: r for r in xds["routes"]}
    assignments = {e["cluster_name"]: e for e in xds["endpoints"]}
    listeners = [_envoy_listener(listener, routes) for listener in xds["listeners"] if listener["name"] in ("0.0.0.0_8000", "0.0.0.0_9080")]
    clusters = [_envoy_cluster(c, assignments) for c in xds["clusters"] if not c["name"].startswith("inbound|")]
    return {
        "node": {"id": "square", "cluster": "square"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _envoy_listener(listener: dict[str, Any], routes: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(listener)
    out.pop("bind_to_port", None)
    out.pop("access_log", None)
    out["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    for manager in _http_managers(out):
        manager.pop("access_log", None)
        manager.pop("tracing", None)
        manager["http_filters"] = [f for f in manager["http_filters"] if not f["name"].startswith(ISTIO_ONLY)]
        if "rds" in manager:
            manager["route_config"] = {**routes[manager.pop("rds")["route_config_name"]], "validate_clusters": False}
    out["filter_chains"] = [c for c in out["filter_chains"] if any(f["name"].endswith("http_connection_manager") for f in c["filters"])]
    out["filter_chains"][0].pop("filter_chain_match", None)
    out["filter_chains"] = out["filter_chains"][:1]
    for name in ("default_filter_chain", "listener_filters", "listener_filters_timeout", "continue_on_listener_filters_timeout"):
        out.pop(name, None)
    return out


def _envoy_cluster(cluster: dict[str, Any], assignments: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(cluster)
    out.pop("filters", None)
    if out.get("type") == "EDS":
        out.pop("eds_cluster_config")
        out["type"] = "STATIC"
        out["load_assignment"] = assignments.get(out["name"], {"cluster_name": out["name"]})
        out["load_assignment"] = {**out["load_assignment"], "cluster_name": out["name"]}
    return out


@contextlib.asynccontextmanager
async def envoy(binary: Path, xds: Xds, directory: Path) -> AsyncIterator[dict[int, int]]:
    """A stock Envoy over this configuration, ready when its admin says so; gives the loopback port of each service port."""
    config = directory / "envoy.json"
    config.write_text(json.dumps(envoy_bootstrap(xds)))
    admin = directory / "admin"
    log = (directory / "envoy.log").open("wb")
    process = subprocess.Popen(
        [str(binary), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "warning", "--admin-address-path", str(admin)],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        await _envoy_ready(process, admin, directory / "envoy.log")
        yield await _envoy_ports(admin)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


async def _envoy_ready(process: subprocess.Popen[bytes], admin: Path, log: Path) -> None:
    while process.poll() is None:
        if admin.exists() and ":" in admin.read_text():
            with contextlib.suppress(OSError):
                answer = await request(int(admin.read_text().rpartition(":")[2]), "GET", "/ready", {"host": "localhost"})
                if answer.status == 200:
                    return
        await asyncio.sleep(0.01)
    pytest_reason = log.read_text()[-2000:]
    raise AssertionError(f"Envoy refused the configuration: {pytest_reason}")


async def _envoy_ports(admin: Path) -> dict[int, int]:
    answer = await request(int(admin.read_text().rpartition(":")[2]), "GET", "/listeners?format=json", {"host": "localhost"})
    found = json.loads(answer.body)["listener_statuses"]
    return {int(one["name"].rpartition("_")[2]): one["local_address"]["socket_address"]["port_value"] for one in found}


async def request(port: int, method: str, target: str, headers: dict[str, str], body: str = "") -> Answer:
    """One request on a connection of its own, to a loopback port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    if body:
        lines.append(f"content-length: {len(body)}")
    writer.write(("\r\n".join([*lines, "", ""]) + body).encode())
    try:
        return await asyncio.wait_for(_answer(reader, method), 5)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) if line.endswith(":") is False else (line[:-1].lower(), "") for line in head[1:] if line)
    payload = b""
    if method != "HEAD" and headers.get("transfer-encoding") == "chunked":
        payload = await _chunks(reader)
    elif method != "HEAD" and headers.get("content-length"):
        payload = await reader.readexactly(int(headers["content-length"]))
    text = payload.decode()
    app = json.loads(text) if "x-app" in headers and text.startswith("{") else {}
    return Answer(int(head[0].split()[1]), headers, text, headers.pop("x-app", ""), app)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    out = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        out += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return out


def origin_form(url: str) -> tuple[str, int, str]:
    """`http://reviews:9080/a?b` -> (`reviews:9080`, 9080, `/a?b`)."""
    parts = urlsplit(url)
    return parts.netloc, parts.port or 80, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
