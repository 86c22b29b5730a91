"""The embedded registry's HTTP face: routes, ACL, blocking queries, the one sweep, the HTTP checks."""

import asyncio
import hmac
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from devmesh.config.durations import parse_duration
from devmesh.localhttp import Handler, is_local
from devmesh.registry.embedded import views
from devmesh.registry.embedded.journal import Journal
from devmesh.registry.embedded.store import Check, Record, Service, Store, TransactionError, UnknownCheckError

MAX_VALUE_BYTES = 512 * 1024
MAX_TXN_BYTES = 512 * 1024
MAX_TXN_OPERATIONS = 64
# Consul's default and longest blocking query.
DEFAULT_WAIT = 300.0
MAX_WAIT = 600.0
SWEEP_SECONDS = 0.25
SYNC_SECONDS = 1.0
# What Consul's default-deny ACL answers to a request without token: lists are filtered to nothing, the rest is refused.
FILTERED_EMPTY: dict[str, Any] = {
    "/v1/health/": [],
    "/v1/catalog/services": {},
    "/v1/catalog/": [],
    "/v1/agent/services": {},
    "/v1/agent/checks": {},
}
OPEN_PATHS = ("/v1/status/",)


class EmbeddedRegistry:
    """Store, journal and HTTP together; `clock` is monotonic seconds."""

    def __init__(self, directory: Path, token: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = Store()
        self._token = token
        self._clock = clock
        self._journal = Journal(directory)
        for records in self._journal.replay():
            self._store.apply(records)
        self._changed = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=2 * MAX_VALUE_BYTES)
        app.router.add_get("/v1/status/leader", self._leader)
        app.router.add_get("/v1/status/peers", self._peers)
        app.router.add_get("/v1/agent/self", self._self)
        app.router.add_get("/v1/agent/services", self._agent_services)
        app.router.add_get("/v1/agent/checks", self._agent_checks)
        app.router.add_put("/v1/agent/service/register", self._register)
        app.router.add_put("/v1/agent/service/deregister/{id:.+}", self._deregister)
        app.router.add_get("/v1/agent/service/{id:.+}", self._agent_service)
        app.router.add_put("/v1/agent/check/register", self._check_register)
        app.router.add_put("/v1/agent/check/deregister/{id:.+}", self._check_deregister)
        app.router.add_put("/v1/agent/check/{verb:pass|warn|fail}/{id:.+}", self._check_verb)
        app.router.add_put("/v1/agent/check/update/{id:.+}", self._check_update)
        app.router.add_get("/v1/health/state/{state}", self._health_state)
        app.router.add_get("/v1/health/service/{name}", self._health_service)
        app.router.add_get("/v1/health/checks/{name}", self._health_checks)
        app.router.add_get("/v1/health/node/{name}", self._health_node)
        app.router.add_get("/v1/catalog/services", self._catalog_services)
        app.router.add_get("/v1/catalog/service/{name}", self._catalog_service)
        app.router.add_get("/v1/catalog/nodes", self._catalog_nodes)
        app.router.add_get("/v1/kv/{key:.*}", self._kv_get)
        app.router.add_put("/v1/kv/{key:.+}", self._kv_put)
        app.router.add_delete("/v1/kv/{key:.*}", self._kv_delete)
        app.router.add_put("/v1/txn", self._txn)
        app.cleanup_ctx.append(self._background)
        return app

    # Admission

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_local(request.headers.get("Host"), request.headers.get("Origin")):
            return web.Response(status=403, text="devmesh: Host and Origin must be 127.0.0.1, localhost or [::1]\n")
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            return await handler(request)
        except (views.BadRequestError, ValueError, TypeError, AttributeError) as error:
            return web.Response(status=400, text=f"{error}\n")

    def _refusal(self, request: web.Request) -> web.Response | None:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = request.headers.get("X-Consul-Token") or request.query.get("token") or bearer
        if request.path.startswith(OPEN_PATHS) or hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        if given:
            return web.Response(status=403, text="ACL not found")
        if request.method == "GET":
            for prefix, empty in FILTERED_EMPTY.items():
                if request.path.startswith(prefix):
                    return _json(empty, self._store.service_index)
        return web.Response(status=403, text="Permission denied")

    # Change: journal, then wake

    def _commit(self, records: Sequence[Record]) -> None:
        if not records:
            return
        self._journal.append(records)
        if self._journal.wants_compaction(len(self._store.kv) + len(self._store.services) + len(self._store.checks)):
            self._journal.compact(self._store.records())
        self._changed.set()
        self._changed = asyncio.Event()

    async def _blocked(self, request: web.Request, index: Callable[[], int]) -> int:
        """Wait while `index()` is what the client already has, at most its `wait`; give the index to answer with."""
        known = int(request.query.get("index") or 0)
        wait = min(parse_duration(request.query["wait"]), MAX_WAIT) if request.query.get("wait") else DEFAULT_WAIT
        with suppress(TimeoutError):
            async with asyncio.timeout(wait if known > 0 else 0.001):
                # An index from the future belongs to another registry's life: answer at once, as Consul does.
                while known > 0 and index() == known:
                    await self._changed.wait()
        return index()

    async def _background(self, _: web.Application) -> Any:
        async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
            running = [
                tasks.create_task(self._sweeping(), name="registry sweep"),
                tasks.create_task(self._syncing(), name="registry fsync"),
                tasks.create_task(self._probing(session), name="registry http checks"),
            ]
            yield
            for task in running:
                task.cancel()
        self._journal.close()

    async def _sweeping(self) -> None:
        while True:
            self._commit(self._store.sweep(self._clock()))
            await asyncio.sleep(SWEEP_SECONDS)

    async def _syncing(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            if self._journal.is_behind:
                self._journal.compact(self._store.records())
            self._journal.sync()

    async def _probing(self, session: aiohttp.ClientSession) -> None:
        """One sweep asks every HTTP check that is due; a slow target holds up only itself, by its timeout."""
        due: dict[str, float] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                for check in [check for check in self._store.checks.values() if check.http]:
                    if check.http and due.get(check.id, 0) <= self._clock():
                        due[check.id] = self._clock() + check.http.interval
                        tasks.create_task(self._probe(session, check), name=f"registry probe {check.id}")
                await asyncio.sleep(SWEEP_SECONDS)

    async def _probe(self, session: aiohttp.ClientSession, check: Check) -> None:
        status, output = await _ask(session, check)
        with suppress(UnknownCheckError):  # deregistered while we asked
            self._commit(self._store.report(check.id, status, output, self._clock(), kind="http"))

    # Agent

    async def _leader(self, _: web.Request) -> web.Response:
        return _json(f"{views.NODE_ADDRESS}:8300")

    async def _peers(self, _: web.Request) -> web.Response:
        return _json([f"{views.NODE_ADDRESS}:8300"])

    async def _self(self, _: web.Request) -> web.Response:
        return _json(views.agent_self())

    async def _agent_services(self, _: web.Request) -> web.Response:
        return _json({service.id: views.agent_service(service) for service in self._store.services.values()})

    async def _agent_service(self, request: web.Request) -> web.Response:
        service = self._store.services.get(request.match_info["id"])
        if service is None:
            return web.Response(status=404, text=f"unknown service ID: {request.match_info['id']}")
        return _json(views.agent_service(service))

    async def _agent_checks(self, _: web.Request) -> web.Response:
        return _json({check.id: views.health_check(check) for check in self._store.checks.values()})

    async def _register(self, request: web.Request) -> web.Response:
        service, checks = views.parse_service(orjson.loads(await request.read()))
        self._commit(self._store.register(service, checks, self._clock()))
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        service_id = request.match_info["id"]
        if service_id not in self._store.services:
            return web.Response(status=404, text=f"Unknown service {service_id!r}")
        self._commit(self._store.deregister(service_id))
        return web.Response()

    async def _check_register(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        service_id = views.folded(body).get("serviceid")
        service = self._store.services.get(service_id) if service_id else None
        if service_id and service is None:
            return web.Response(status=400, text=f"ServiceID {service_id!r} does not exist")
        self._commit(self._store.add_check(views.parse_check(body, service), self._clock()))
        return web.Response()

    async def _check_deregister(self, request: web.Request) -> web.Response:
        self._commit(self._store.remove_check(request.match_info["id"]))
        return web.Response()

    async def _check_verb(self, request: web.Request) -> web.Response:
        status = {"pass": "passing", "warn": "warning", "fail": "critical"}[request.match_info["verb"]]
        return self._report(request.match_info["id"], status, request.query.get("note", ""))

    async def _check_update(self, request: web.Request) -> web.Response:
        fields = views.folded(orjson.loads(await request.read()))
        if fields.get("status") not in {"passing", "warning", "critical"}:
            return web.Response(status=400, text=f"Invalid check status: {fields.get('status')!r}")
        return self._report(request.match_info["id"], fields["status"], str(fields.get("output") or ""))

    def _report(self, check_id: str, status: str, output: str) -> web.Response:
        try:
            records = self._store.report(check_id, status, output, self._clock())
        except UnknownCheckError as error:
            return web.Response(status=404, text=error.message)
        self._commit(records)
        return web.Response()

    # Health and catalogue

    async def _health_state(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        state = request.match_info["state"]
        return _json([views.health_check(check) for check in self._store.checks.values() if state in ("any", check.status)], index)

    async def _health_service(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        wanted = self._tagged(request)
        entries = [(service, self._store.checks_of(service)) for service in wanted]
        if "passing" in request.query and request.query["passing"] not in ("0", "false"):
            entries = [(service, checks) for service, checks in entries if all(check.status == "passing" for check in checks)]
        return _json([views.health_service(service, checks) for service, checks in entries], index)

    def _tagged(self, request: web.Request) -> list[Service]:
        tags = set(request.query.getall("tag", []))
        return [service for service in self._store.instances(request.match_info["name"]) if tags <= set(service.tags)]

    async def _health_checks(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        name = request.match_info["name"]
        return _json([views.health_check(check) for check in self._store.checks.values() if check.service_name == name], index)

    async def _health_node(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        here = request.match_info["name"] == views.NODE_NAME
        return _json([views.health_check(check) for check in self._store.checks.values() if here], index)

    async def _catalog_services(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        tags: dict[str, set[str]] = {"consul": set()}
        for service in self._store.services.values():
            tags.setdefault(service.name, set()).update(service.tags)
        return _json({name: sorted(values) for name, values in tags.items()}, index)

    async def _catalog_service(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        return _json([views.catalog_service(service) for service in self._tagged(request)], index)

    async def _catalog_nodes(self, request: web.Request) -> web.Response:
        index = await self._blocked(request, lambda: self._store.service_index)
        return _json([views.node()], index)

    # KV

    async def _kv_get(self, request: web.Request) -> web.Response:
        key, query = request.match_info["key"], request.query
        recurse = "recurse" in query or "keys" in query
        index = await self._blocked(request, lambda: self._store.kv_index_of(key, recurse=recurse))
        entries = self._store.kv_under(key) if recurse else [self._store.kv[key]] if key in self._store.kv else []
        if not entries:
            return web.Response(status=404, headers=_headers(index))
        if "raw" in query and not recurse:
            return web.Response(body=entries[0].value, headers=_headers(index))
        if "keys" in query:
            return _json(_keys([entry.key for entry in entries], key, query.get("separator", "")), index)
        return _json([views.kv(entry) for entry in entries], index)

    async def _kv_put(self, request: web.Request) -> web.Response:
        value = await _limited(request, MAX_VALUE_BYTES)
        if value is None:
            return web.Response(status=413, text=f"Request body too large, max size: {MAX_VALUE_BYTES} bytes.")
        cas = request.query.get("cas")
        flags = int(request.query.get("flags") or 0)
        records = self._store.kv_put(request.match_info["key"], value, flags=flags, cas=int(cas) if cas is not None else None)
        self._commit(records or [])
        return _json(records is not None)

    async def _kv_delete(self, request: web.Request) -> web.Response:
        cas = request.query.get("cas")
        if cas == "0":
            return web.Response(status=400, text="Missing index: cas=0 never deletes")
        recurse = "recurse" in request.query
        records = self._store.kv_delete(request.match_info["key"], recurse=recurse, cas=int(cas) if cas is not None else None)
        self._commit(records or [])
        return _json(records is not None)

    async def _txn(self, request: web.Request) -> web.Response:
        body = await _limited(request, MAX_TXN_BYTES)
        if body is None:
            return web.Response(status=413, text=f"Request body too large, max size: {MAX_TXN_BYTES} bytes.")
        operations = views.parse_operations(orjson.loads(body))
        if len(operations) > MAX_TXN_OPERATIONS:
            return web.Response(status=413, text=f"Transaction contains too many operations ({len(operations)} > {MAX_TXN_OPERATIONS})")
        try:
            records, results = self._store.transact(operations)
        except TransactionError as error:
            failed = {"Results": None, "Errors": [{"OpIndex": error.position, "What": error.message}]}
            return _json(failed, status=409)
        self._commit(records)
        return _json({"Results": [{"KV": views.kv(entry)} for entry in results], "Errors": None})


async def _ask(session: aiohttp.ClientSession, check: Check) -> tuple[str, str]:
    """Consul's verdict on an HTTP check: 2xx passes, 429 warns, the rest is critical."""
    probe = check.http
    if probe is None:
        return "critical", "no probe"
    try:
        timeout = aiohttp.ClientTimeout(total=probe.timeout)
        async with session.request(probe.method, probe.url, timeout=timeout) as response:
            text = (await response.content.read(4096)).decode(errors="replace")
            status = "passing" if response.ok and response.status < 300 else "warning" if response.status == 429 else "critical"
            return status, f"HTTP {probe.method} {probe.url}: {response.status} {response.reason} Output: {text}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return "critical", f"{probe.method} {probe.url}: {str(error) or type(error).__name__}"


async def _limited(request: web.Request, limit: int) -> bytes | None:
    """Read the body; None when it is larger than `limit`."""
    if (request.content_length or 0) > limit:
        return None
    body = await request.content.read(-1) if request.content_length is None else await request.read()
    return body if len(body) <= limit else None


def _keys(keys: list[str], prefix: str, separator: str) -> list[str]:
    """Consul's `?keys&separator=/`: keys cut after the first separator behind the prefix, each once."""
    if not separator:
        return keys
    cut: dict[str, None] = {}
    for key in keys:
        end = key.find(separator, len(prefix))
        cut[key if end < 0 else key[: end + len(separator)]] = None
    return list(cut)


def _headers(index: int | None) -> dict[str, str]:
    if index is None:
        return {}
    return {"X-Consul-Index": str(index), "X-Consul-KnownLeader": "true", "X-Consul-LastContact": "0"}


def _json(value: Any, index: int | None = None, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json", headers=_headers(index))


async def serve(sock: socket.socket, directory: Path, token: str, ready: Callable[[], None]) -> None:
    """Serve on an already bound socket until SIGTERM or SIGINT; `ready()` is called once it answers."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Blocking queries are open for minutes: at the end they are cut, not awaited.
    runner = web.AppRunner(EmbeddedRegistry(directory, token).app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        ready()
        await stop.wait()
    finally:
        await runner.cleanup()
