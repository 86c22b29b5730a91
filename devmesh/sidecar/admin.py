"""Envoy's admin API as far as its users look at it, plus the health (15021) and Prometheus (15090) listeners."""

import asyncio
import logging
from typing import Any

from aiohttp import web
from cryptography import x509

from devmesh import __version__
from devmesh.localhttp import guard
from devmesh.sidecar.balancing import key_of
from devmesh.sidecar.config import Cluster, Endpoint
from devmesh.sidecar.config_dump import config_dump
from devmesh.sidecar.running import Phase, Running, rfc3339

log = logging.getLogger(__name__)
PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# What POST /drain_listeners lets requests in flight take; Envoy's --drain-time-s is 45 in Istio.
DRAIN_SECONDS = 45.0
LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})


def wants_json(request: web.Request) -> bool:
    return request.query.get("format") == "json"


class Admin:
    """15000. Reads are open to this machine; writes need the token."""

    def __init__(self, running: Running, token: str | None) -> None:
        self._running = running
        self._token = token
        self._draining: asyncio.Task[None] | None = None

    def app(self) -> web.Application:
        app = web.Application(middlewares=[guard(self._token)])
        for path, read in (
            ("/ready", self._ready),
            ("/server_info", self._server_info),
            ("/stats", self._stats),
            ("/stats/prometheus", self._prometheus),
            ("/config_dump", self._config_dump),
            ("/clusters", self._clusters),
            ("/certs", self._certs),
            ("/listeners", self._listeners),
        ):
            app.router.add_get(path, read)
        app.router.add_post("/drain_listeners", self._drain_listeners)
        app.router.add_post("/quitquitquit", self._quit)
        app.router.add_post("/logging", self._logging)
        return app

    def health_app(self) -> web.Application:
        app = web.Application(middlewares=[guard(None)])
        app.router.add_get("/healthz/ready", self._healthz)
        return app

    def prometheus_app(self) -> web.Application:
        app = web.Application(middlewares=[guard(None, by_address=True)])
        app.router.add_get("/stats/prometheus", self._prometheus)
        return app

    async def close(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)

    # Reads

    async def _ready(self, _: web.Request) -> web.Response:
        phase = self._running.phase
        return web.Response(status=200 if phase is Phase.LIVE else 503, text=f"{phase.value}\n")

    async def _healthz(self, _: web.Request) -> web.Response:
        live = self._running.phase is Phase.LIVE
        return web.Response(status=200 if live else 503, text="" if live else f"{self._why_not_ready()}\n")

    def _why_not_ready(self) -> str:
        running = self._running
        if running.phase is Phase.DRAINING:
            return "draining"
        if running.identity is not None and running.identity.credentials is None:
            return f"no certificate yet: {running.identity.last_error or 'asking the CA'}"
        if not running.proxy.config.version:
            return f"no configuration yet: {(running.agent.last_error if running.agent else '') or 'asking the control plane'}"
        return "listeners are not open yet"

    async def _server_info(self, _: web.Request) -> web.Response:
        running = self._running
        uptime = (running.wall_ns() - running.started_ns) // 1_000_000_000
        agent = running.agent
        return web.json_response(
            {
                "version": f"devmesh/{__version__}",
                "state": running.phase.value,
                "uptime_current_epoch": f"{uptime}s",
                "uptime_all_epochs": f"{uptime}s",
                "node": running.bootstrap.node.to_json(),
                "xds": {"version": running.proxy.config.version, "connected": bool(agent and agent.connected)},
                "ca": {"error": running.identity.last_error if running.identity is not None else ""},
            }
        )

    def counters(self) -> dict[str, int]:
        """Give the proxy's counters and our own."""
        running = self._running
        counters = dict(running.proxy.stats())
        counters["server.live"] = int(running.phase is Phase.LIVE)
        if running.agent is not None:
            counters["control_plane.connected_state"] = int(running.agent.connected)
            counters["control_plane.update_success"] = running.agent.updates
            counters["control_plane.update_rejected"] = running.agent.rejects
        if running.identity is not None:
            counters["sds.default.update_success"] = running.identity.renewals
            counters["sds.default.update_failure"] = running.identity.failures
        return counters

    async def _stats(self, request: web.Request) -> web.Response:
        counters = sorted(self.counters().items())
        if request.query.get("format") == "prometheus":
            return await self._prometheus(request)
        if wants_json(request):
            return web.json_response({"stats": [{"name": name, "value": value} for name, value in counters]})
        return web.Response(text="".join(f"{name}: {value}\n" for name, value in counters))

    async def _prometheus(self, _: web.Request) -> web.Response:
        own = "".join(
            f"# TYPE {name} untyped\n{name} {value}\n"
            for name, value in sorted((_prometheus_name(name), value) for name, value in self.counters().items())
        )
        text = self._running.telemetry.metrics.render().rstrip("\n") + "\n" + own
        return web.Response(body=text.encode(), headers={"content-type": PROMETHEUS_TYPE})

    async def _config_dump(self, request: web.Request) -> web.Response:
        return web.json_response(config_dump(self._running, include_eds="include_eds" in request.query))

    async def _clusters(self, request: web.Request) -> web.Response:
        clusters = self._running.proxy.config.clusters.values()
        if wants_json(request):
            return web.json_response({"cluster_statuses": [self._cluster_status(cluster) for cluster in clusters]})
        return web.Response(text="".join(line for cluster in clusters for line in self._cluster_lines(cluster)))

    def _health_flags(self, cluster: Cluster, endpoint: Endpoint) -> tuple[bool, bool]:
        """Say what EDS and outlier detection hold against an endpoint."""
        return not endpoint.healthy, key_of(endpoint) in self._running.proxy.upstreams.ejected(cluster.name)

    def _cluster_lines(self, cluster: Cluster) -> list[str]:
        lines = [
            f"{cluster.name}::added_via_api::true\n",
            f"{cluster.name}::default_priority::max_requests::{cluster.breakers.max_requests}\n",
        ]
        for endpoint in self._running.proxy.upstreams.endpoints(cluster):
            unhealthy, ejected = self._health_flags(cluster, endpoint)
            flags = "".join([*(["/failed_eds_health"] if unhealthy else []), *(["/failed_outlier_check"] if ejected else [])])
            head = f"{cluster.name}::{endpoint.address}:{endpoint.port}"
            lines += [f"{head}::rq_active::{self._active(endpoint)}\n", f"{head}::health_flags::{flags or 'healthy'}\n"]
            lines += [f"{head}::weight::{endpoint.weight}\n", f"{head}::priority::{endpoint.priority}\n"]
        return lines

    def _active(self, endpoint: Endpoint) -> int:
        return self._running.proxy.upstreams.active(key_of(endpoint))

    def _cluster_status(self, cluster: Cluster) -> dict[str, Any]:
        hosts = [self._host_status(cluster, endpoint) for endpoint in self._running.proxy.upstreams.endpoints(cluster)]
        return {"name": cluster.name, "added_via_api": True, "host_statuses": hosts, "observability_name": cluster.name}

    def _host_status(self, cluster: Cluster, endpoint: Endpoint) -> dict[str, Any]:
        unhealthy, ejected = self._health_flags(cluster, endpoint)
        health: dict[str, Any] = {"eds_health_status": "UNHEALTHY" if unhealthy else "HEALTHY"}
        return {
            "address": _socket_address(endpoint.address, endpoint.port),
            "stats": [{"type": "GAUGE", "name": "rq_active", "value": str(self._active(endpoint))}],
            "health_status": health | ({"failed_outlier_check": True} if ejected else {}),
            "weight": endpoint.weight,
            "priority": endpoint.priority,
        }

    async def _certs(self, _: web.Request) -> web.Response:
        credentials = self._running.certificates()
        if credentials is None:
            return web.json_response({"certificates": []})
        now = self._running.wall_ns()
        chain, roots = _described(credentials.certificate_chain, now), _described(credentials.trust_bundle, now)
        return web.json_response({"certificates": [{"ca_cert": roots, "cert_chain": chain}]})

    async def _listeners(self, request: web.Request) -> web.Response:
        listeners = self._running.proxy.config.listeners.values()
        if not wants_json(request):
            return web.Response(text="".join(f"{item.name}::{item.address}:{item.port}\n" for item in listeners))
        statuses = [
            {"name": item.name, "local_address": {"socket_address": {"address": item.address, "port_value": item.port}}}
            for item in listeners
        ]
        return web.json_response({"listener_statuses": statuses})

    # Writes

    async def _drain_listeners(self, _: web.Request) -> web.Response:
        if self._draining is None:
            self._draining = asyncio.create_task(self._running.proxy.drain(DRAIN_SECONDS), name="drain listeners")
        return web.Response(text="OK\n")

    async def _quit(self, _: web.Request) -> web.Response:
        self._running.stop.set()
        return web.Response(text="OK\n")

    async def _logging(self, request: web.Request) -> web.Response:
        level = request.query.get("level")
        if level is not None and level not in LEVELS:
            return web.Response(status=400, text=f"level must be one of {', '.join(sorted(LEVELS))}\n")
        logger = logging.getLogger("devmesh")
        if level is not None:
            logger.setLevel(level.upper())
        return web.Response(text=f"active loggers:\n  devmesh: {logging.getLevelName(logger.getEffectiveLevel()).lower()}\n")


def _socket_address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _prometheus_name(name: str) -> str:
    return "devmesh_" + "".join(character if character.isalnum() else "_" for character in name)


def _described(pem: str, now_ns: int) -> list[dict[str, Any]]:
    return [_certificate(certificate, now_ns) for certificate in x509.load_pem_x509_certificates(pem.encode())]


def _certificate(certificate: x509.Certificate, now_ns: int) -> dict[str, Any]:
    """Give Envoy's CertificateDetails."""
    names = [value for extension in certificate.extensions if isinstance(value := extension.value, x509.SubjectAlternativeName)]
    uris = [uri for name in names for uri in name.get_values_for_type(x509.UniformResourceIdentifier)]
    begins, ends = (int(moment.timestamp() * 1e9) for moment in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    return {
        "path": "<inline>",
        "serial_number": f"{certificate.serial_number:x}",
        "subject_alt_names": [{"uri": uri} for uri in uris],
        "days_until_expiration": str(max(0, ends - now_ns) // 86_400_000_000_000),
        "valid_from": rfc3339(begins),
        "expiration_time": rfc3339(ends),
    }
