"""The control plane's own HTTP API on 15014: what CLI, tests and people ask it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from devmesh import __version__
from devmesh.config.durations import parse_duration
from devmesh.controlplane.push import Generation, Proxy, Pushes
from devmesh.controlplane.state import State
from devmesh.controlplane.watch import Link, RegistryWatch
from devmesh.errors import DevmeshError
from devmesh.localhttp import guard
from devmesh.registry.client import Registry
from devmesh.registry.resources import GENERATION
from devmesh.xds.snapshot import SHOWN_TYPES, TYPES

MAX_WAIT = 300.0
# A sidecar that dies while an apply waits for it says nothing more: looked for this often.
LOOK_AGAIN_SECONDS = 0.25


class Admin:
    def __init__(self, registry: Registry, token: str, watch: RegistryWatch, state: State, pushes: Pushes) -> None:
        self._registry = registry
        self._token = token
        self._watch = watch
        self._state = state
        self._pushes = pushes

    def app(self) -> web.Application:
        app = web.Application(middlewares=[guard(self._token, by_address=True)])
        app.router.add_get("/v1/generations/{id}", self._generation)
        app.router.add_get("/v1/proxies", self._proxies)
        app.router.add_get("/v1/proxies/{workload}/config", self._config)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz/ready", self._ready)
        return app

    async def _generation(self, request: web.Request) -> web.Response:
        """Wait until it is compiled and every connected sidecar has spoken, at most `wait`."""
        try:
            wait = min(parse_duration(request.query.get("wait", "0s")), MAX_WAIT)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        wanted = request.match_info["id"]
        index = 0 if wanted in self._pushes.generations else await self._written_index()
        await self._pushes.news.until(lambda: self._is_settled(wanted, index), wait, look_again=LOOK_AGAIN_SECONDS)
        return _json(self._answer(wanted, self._pushes.generation_for(wanted, index, self._watch.life)))

    async def _written_index(self) -> int:
        """Where the KV is now: the asker wrote before, so a compile from here on holds that, even if a newer generation overtook it."""
        try:
            _, pair = await self._registry.kv_get(GENERATION)
        except DevmeshError:
            return 0
        return pair.modify_index if pair else 0

    def _is_settled(self, wanted: str, index: int) -> bool:
        generation = self._pushes.generation_for(wanted, index, self._watch.life)
        return generation is not None and self._pushes.is_settled(generation)

    def _answer(self, wanted: str, generation: Generation | None) -> dict[str, Any]:
        if generation is None:
            return {
                "generation": wanted,
                "compiled": False,
                "diagnostics": [],
                "seconds": 0.0,
                "sidecars": [],
                "problem": self._watch.problem,
            }
        sidecars = []
        for name, sequence in sorted(generation.sequences.items()):
            state, error = self._pushes.sidecar_state(name, sequence)
            sidecars.append({"workload": name, "state": state, "error": error or None, "changed": name in generation.changed})
        answer: dict[str, Any] = {
            "generation": wanted,
            "compiled": True,
            "diagnostics": [diagnostic.to_json() for diagnostic in generation.diagnostics],
            "seconds": round(generation.seconds, 6),
            "sidecars": sidecars,
        }
        return answer if generation.id == wanted else answer | {"compiled_as": generation.id}

    async def _proxies(self, _: web.Request) -> web.Response:
        return _json({"proxies": [self._proxy(proxy) for _, proxy in sorted(self._pushes.proxies.items())]})

    def _proxy(self, proxy: Proxy) -> dict[str, Any]:
        workload = self._state.workload(proxy.workload)
        now = self._pushes.clock()
        return {
            "workload": proxy.workload,
            "namespace": proxy.namespace,
            "service": workload.service if workload else "",
            "version": workload.version if workload else "",
            "gateway": workload.gateway if workload else False,
            "connected": proxy.is_connected(now),
            "synced": proxy.acked_sequence() == proxy.sequence,
            "version_sent": proxy.snapshot.version if proxy.snapshot else None,
            "version_acked": proxy.version_acked or None,
            "error": proxy.error() or None,
            # Until its sidecar has reported to us, the registry remembers what it told our predecessor.
            "healthy": True if proxy.healthy is None and proxy.workload in self._state.healthy() else proxy.healthy,
            "detail": proxy.detail,
            "restarts": proxy.restarts,
            "h2_ports": proxy.h2_ports,
            "calls_out": proxy.calls_out,
            "sidecar_version": proxy.sidecar_version,
            "last_seen": None if proxy.last_seen is None else _ago(now - proxy.last_seen),
        }

    async def _config(self, request: web.Request) -> web.Response:
        name = request.match_info["workload"]
        proxy = self._pushes.proxies.get(name)
        if proxy is None or proxy.snapshot is None:
            known = ", ".join(sorted(self._pushes.proxies)) or "none yet"
            return web.json_response({"error": f"no workload {name}; there are: {known}"}, status=404)
        return _json({"version": proxy.snapshot.version} | {kind: proxy.snapshot.resources.get(kind, ()) for kind in SHOWN_TYPES})

    async def _status(self, _: web.Request) -> web.Response:
        configuration = self._watch.configuration
        answer: Mapping[str, Any] = {
            "ready": self._is_ready(),
            "registry": {"state": self._watch.link.value, "problem": self._watch.problem or None, "url": self._registry.url},
            "mesh_id": configuration.mesh_id if configuration else None,
            "generation": configuration.generation if configuration else None,
            "resources": len(configuration.resources) if configuration else 0,
            "diagnostics": [diagnostic.to_json() for diagnostic in self._state.diagnostics],
            "endpoints": sorted(self._state.given_out()),
            "compiles": self._state.compiles,
        }
        return _json(answer)

    def _is_ready(self) -> bool:
        return self._state.synced.is_set() and self._watch.link is Link.SYNCED

    async def _ready(self, _: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"registry {self._watch.link.value}: {self._watch.problem}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._exposition(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    def _exposition(self) -> str:
        """Istiod's names where it has one for the same thing."""
        now, pushes = self._pushes.clock(), self._pushes
        connected = sum(proxy.is_connected(now) for proxy in pushes.proxies.values())
        lines = ["# TYPE istio_build gauge", f'istio_build{{component="pilot",tag="{__version__}"}} 1']
        lines += ["# TYPE pilot_xds gauge", f'pilot_xds{{version="devmesh"}} {connected}', "# TYPE pilot_xds_pushes counter"]
        lines += [f'pilot_xds_pushes{{type="{kind}"}} {pushes.counts.get(("pushes", kind), 0)}' for kind in TYPES]
        lines += ["# TYPE pilot_total_xds_rejects counter"]
        lines += [f'pilot_total_xds_rejects{{type="{kind}"}} {pushes.counts.get(("rejects", kind), 0)}' for kind in TYPES]
        lines += ["# TYPE pilot_services gauge", f"pilot_services {len(self._state.topology.services) if self._state.topology else 0}"]
        lines += ["# TYPE devmesh_compiles_total counter", f"devmesh_compiles_total {self._state.compiles}"]
        lines += ["# TYPE devmesh_compile_seconds gauge", f"devmesh_compile_seconds {self._state.compile_seconds:.6f}"]
        lines += ["# TYPE devmesh_registry_up gauge", f"devmesh_registry_up {int(self._watch.link is Link.SYNCED)}"]
        lines += ["# TYPE pilot_proxy_convergence_time summary"]
        lines += [f"pilot_proxy_convergence_time_sum {sum(pushes.convergence):.6f}"]
        lines += [f"pilot_proxy_convergence_time_count {len(pushes.convergence)}"]
        return "\n".join(lines) + "\n"


def _ago(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() - seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
