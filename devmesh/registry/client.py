"""A small typed face on py-consul: what devmesh asks of a registry, embedded or real, and nothing else."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import consul.aio
import consul.base
import consul.exceptions
import orjson

from devmesh.errors import DevmeshError

MAX_VALUE_BYTES = 512 * 1024  # Consul's kv_max_value_size
MAX_TXN_OPERATIONS = 64  # Consul's hard limit
# Consul's txn_max_req_len is 512 KiB too and counts base64 and JSON: what is bigger than this goes as a PUT of its own.
MAX_TXN_BYTES = 500 * 1024
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
# A blocking query is answered up to wait/16 late (Consul's jitter).
WAIT_SLACK = 1 / 16
UNKNOWN_CHECK = ("does not have associated TTL", "Unknown check")


class RegistryUnavailableError(DevmeshError):
    """No answer, no leader, or a 5xx: worth trying again later."""


class RegistryDeniedError(DevmeshError):
    """The token was refused."""


@dataclass(frozen=True, slots=True)
class Pair:
    key: str
    value: bytes
    modify_index: int
    flags: int = 0
    create_index: int = 0


@dataclass(frozen=True, slots=True)
class Registration:
    """A workload as the registry knows it; `ttl` in seconds is how long silence keeps it healthy; `addresses` its own by network."""

    workload: str
    service: str
    address: str
    port: int
    namespace: str
    version: str
    service_account: str
    vip: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[Mapping[str, Any]] = ()
    ttl: float = 15.0
    healthy: bool = False
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def check_id(self) -> str:
        return f"service:{self.workload}"

    @property
    def meta(self) -> dict[str, str]:
        return {
            "namespace": self.namespace,
            "version": self.version,
            "service_account": self.service_account,
            "vip": self.vip,
            "labels": orjson.dumps(dict(self.labels)).decode(),
            "ports": orjson.dumps([dict(port) for port in self.ports]).decode(),
        }


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    service: str
    address: str
    port: int
    meta: Mapping[str, str]
    vip: str
    status: str


@dataclass(frozen=True, slots=True)
class CheckState:
    check_id: str
    service_id: str
    service: str
    status: str
    output: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One KV operation of a transaction; `value=None` deletes, `cas` makes it conditional on that index (0: must not exist)."""

    key: str
    value: bytes | None
    cas: int | None = None

    def encode(self) -> dict[str, Any]:
        verb = "set" if self.value is not None else "delete"
        if self.cas is not None:
            verb = "cas" if self.value is not None else "delete-cas"
        body: dict[str, Any] = {"Verb": verb, "Key": self.key}
        if self.value is not None:
            body["Value"] = base64.b64encode(self.value).decode()
        if self.cas is not None:
            body["Index"] = self.cas
        return {"KV": body}

    @property
    def size(self) -> int:
        return len(self.key) + 4 * len(self.value or b"") // 3 + 100


def next_index(previous: int, given: int) -> int:
    """Give the index for the next blocking query: one that went backwards (restored or new registry) restarts at 0."""
    return 0 if given < previous or given < 1 else given


class HttpClient(consul.base.HTTPClient):  # type: ignore[misc]
    """py-consul's transport on one aiohttp session: token on every request (its txn sends none), no total timeout, bytes bodies."""

    def __init__(self, base_uri: str, token: str, *, ssl: Any = True) -> None:
        parts = urlsplit(base_uri)
        super().__init__(parts.hostname or "127.0.0.1", parts.port or 8500, parts.scheme or "http")
        self._ssl = ssl
        self._session = aiohttp.ClientSession(
            headers={"X-Consul-Token": token},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=None),
        )

    async def _request(
        self, callback: Callable[[Any], Any], method: str, path: str, params: Any, data: str | bytes, read_timeout: float = ANSWER_TIMEOUT
    ) -> Any:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        async with self._session.request(method, self.uri(path, params), data=data or None, timeout=limits, ssl=self._ssl) as response:
            body = await response.text(encoding="utf-8")
        return callback(consul.base.Response(response.status, response.headers, body))

    # py-consul hands down its own headers (the token we send anyway) and timeouts it never sets: ignored.
    def get(self, callback: Any, path: str, params: Any = None, **_: Any) -> Any:
        wait = float(str(dict(params or []).get("wait", "0s")).rstrip("s"))
        return self._request(callback, "GET", path, params, b"", ANSWER_TIMEOUT + wait * (1 + WAIT_SLACK))

    def put(self, callback: Any, path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        return self._request(callback, "PUT", path, params, data)

    def delete(self, callback: Any, path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        return self._request(callback, "DELETE", path, params, data)

    def post(self, callback: Any, path: str, params: Any = None, data: Any = "", **_: Any) -> Any:
        return self._request(callback, "POST", path, params, data)

    def close(self) -> Any:
        return self._session.close()


class Consul(consul.aio.Consul):  # type: ignore[misc]
    """py-consul's aio client on our transport; `CONSUL_HTTP_TOKEN` in the user's environment does not override our token."""

    def __init__(self, url: str, token: str, *, ssl: Any = True) -> None:
        self._url, self._token, self._ssl = url, token, ssl
        parts = urlsplit(url)
        super().__init__(parts.hostname, parts.port, token=token, scheme=parts.scheme)
        self.token = token

    def http_connect(self, *_: Any) -> HttpClient:
        return HttpClient(self._url, self._token, ssl=self._ssl)


@asynccontextmanager
async def _mapped(url: str) -> AsyncIterator[None]:
    try:
        yield
    except consul.exceptions.ACLPermissionDenied as error:
        raise RegistryDeniedError(f"the registry at {url} refused the token: {error}", "devmesh down && devmesh up") from error
    except consul.exceptions.ClientError as error:
        raise DevmeshError(f"the registry at {url} refused the request: {error}", "devmesh logs registry") from error
    except (consul.exceptions.ConsulException, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise RegistryUnavailableError(
            f"the registry at {url} does not answer: {error or type(error).__name__}", "devmesh status"
        ) from error


class Registry:
    """One session with one registry. Blocking calls take `index` and `wait` (seconds) and return `(index, value)`."""

    def __init__(self, url: str, token: str, *, ssl: Any = True) -> None:
        self.url = url
        self._token = token
        self._ssl = ssl
        self._client: Any = None

    @property
    def token(self) -> str:
        return self._token

    async def __aenter__(self) -> Self:
        self._client = Consul(self.url, self._token, ssl=self._ssl)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()

    async def _call(self, call: Callable[[Any], Any]) -> Any:
        async with _mapped(self.url):
            return await call(self._client)

    async def kv_get(self, key: str, *, index: int = 0, wait: float = 0) -> tuple[int, Pair | None]:
        found, item = await self._call(lambda c: c.kv.get(key, **_blocking(index, wait)))
        return int(found), _pair(item) if item else None

    async def kv_list(self, prefix: str, *, index: int = 0, wait: float = 0) -> tuple[int, list[Pair]]:
        found, items = await self._call(lambda c: c.kv.get(prefix, recurse=True, **_blocking(index, wait)))
        return int(found), [_pair(item) for item in items or []]

    async def kv_put(self, key: str, value: bytes, *, cas: int | None = None) -> bool:
        """Answer False when `cas` did not match. DevmeshError above Consul's 512 KiB."""
        check_size(key, value)
        return bool(await self._call(lambda c: c.kv.put(key, value, cas=cas)))

    async def kv_delete(self, key: str, *, recurse: bool = False, cas: int | None = None) -> bool:
        return bool(await self._call(lambda c: c.kv.delete(key, recurse=recurse or None, cas=cas)))

    async def txn(self, operations: Sequence[Operation]) -> None:
        """Run all operations in order, in as many atomic transactions as Consul's limits need. A lost CAS is a DevmeshError."""
        for batch in split_operations(operations):
            if len(batch) == 1 and batch[0].size > MAX_TXN_BYTES and batch[0].value is not None:
                await self._put_alone(batch[0], batch[0].value)
            else:
                await self._call(partial(_put_batch, batch))

    async def _put_alone(self, operation: Operation, value: bytes) -> None:
        if not await self.kv_put(operation.key, value, cas=operation.cas):
            raise DevmeshError(f"the registry refused the write of {operation.key}: somebody else changed it", "the same command again")

    async def register(self, workload: Registration) -> None:
        check = {
            "ttl": f"{workload.ttl:g}s",
            "status": "passing" if workload.healthy else "critical",
            "name": f"{workload.workload} (sidecar's word)",
        }
        addresses = dict(workload.addresses) | ({"virtual": workload.vip} if workload.vip else {})
        tagged = {name: {"address": address, "port": workload.port} for name, address in addresses.items()} or None
        await self._call(
            lambda c: c.agent.service.register(
                workload.service,
                service_id=workload.workload,
                address=workload.address,
                port=workload.port,
                meta=workload.meta,
                check=check,
                tagged_addresses=tagged,
            )
        )

    async def deregister(self, workload: str) -> bool:
        return bool(await self._call(lambda c: c.agent.service.deregister(workload)))

    async def ttl_pass(self, check_id: str, note: str = "") -> bool:
        """Answer False when the registry does not know the check: register again."""
        return await self._ttl(lambda c: c.agent.check.ttl_pass(check_id, notes=note))

    async def ttl_warn(self, check_id: str, note: str = "") -> bool:
        return await self._ttl(lambda c: c.agent.check.ttl_warn(check_id, notes=note))

    async def ttl_fail(self, check_id: str, note: str = "") -> bool:
        return await self._ttl(lambda c: c.agent.check.ttl_fail(check_id, notes=note))

    async def _ttl(self, call: Callable[[Any], Any]) -> bool:
        try:
            return bool(await self._call(call))
        except DevmeshError as error:
            if any(words in error.message for words in UNKNOWN_CHECK):
                return False
            raise

    async def health_state(self, *, index: int = 0, wait: float = 0, state: str = "any") -> tuple[int, list[CheckState]]:
        found, items = await self._call(lambda c: c.health.state(state, **_blocking(index, wait)))
        return int(found), [_check(item) for item in items or []]

    async def health_service(self, name: str, *, index: int = 0, wait: float = 0, passing: bool = False) -> tuple[int, list[Instance]]:
        found, items = await self._call(lambda c: c.health.service(name, passing=passing or None, **_blocking(index, wait)))
        return int(found), [_instance(item) for item in items or []]

    async def catalog_services(self, *, index: int = 0, wait: float = 0) -> tuple[int, dict[str, list[str]]]:
        found, items = await self._call(lambda c: c.catalog.services(**_blocking(index, wait)))
        return int(found), dict(items or {})

    async def leader(self) -> str:
        return str(await self._call(lambda c: c.status.leader()) or "")

    async def wait_leader(self, within: float = 15.0) -> None:
        """Return when writes can succeed; RegistryUnavailableError, or RegistryDeniedError for a token still refused, after `within` seconds."""
        denied: RegistryDeniedError | None = None
        try:
            async with asyncio.timeout(within):
                while True:
                    try:
                        if await self._has_leader():
                            return
                    except RegistryDeniedError as error:
                        denied = error  # a server that has just been elected has not written its first tokens yet ("ACL not found")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise denied or RegistryUnavailableError(
                f"the registry at {self.url} had no leader within {within:g} s", "devmesh logs registry"
            ) from None

    async def _has_leader(self) -> bool:
        try:
            return bool(await self.leader()) and (await self.kv_get("devmesh/mesh-id"))[0] >= 0
        except RegistryUnavailableError:
            return False


async def _put_batch(batch: Sequence[Operation], client: Any) -> Any:
    return await client.txn.put([operation.encode() for operation in batch])


def check_size(key: str, value: bytes) -> None:
    if len(value) > MAX_VALUE_BYTES:
        raise DevmeshError(
            f"{key} has {len(value)} bytes when compressed; the registry takes {MAX_VALUE_BYTES}",
            "split the resource into several (a VirtualService per host, a Gateway per server)",
        )


def split_operations(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Batches that respect Consul's limits of 64 operations and 512 KiB a transaction, in the given order."""
    batches: list[list[Operation]] = []
    size = 0
    for operation in operations:
        check_size(operation.key, operation.value or b"")
        if not batches or len(batches[-1]) >= MAX_TXN_OPERATIONS or size + operation.size > MAX_TXN_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(operation)
        size += operation.size
    return batches


def _blocking(index: int, wait: float) -> dict[str, Any]:
    return {"index": index, "wait": f"{wait:g}s"} if index and wait else {}


def _pair(item: dict[str, Any]) -> Pair:
    return Pair(
        key=item["Key"], value=item["Value"] or b"", modify_index=item["ModifyIndex"], flags=item["Flags"], create_index=item["CreateIndex"]
    )


def _check(item: dict[str, Any]) -> CheckState:
    return CheckState(item["CheckID"], item["ServiceID"], item["ServiceName"], item["Status"], item["Output"])


def _instance(item: dict[str, Any]) -> Instance:
    service = item["Service"]
    virtual = (service.get("TaggedAddresses") or {}).get("virtual") or {}
    statuses = {check["Status"] for check in item["Checks"]}
    worst = next((status for status in ("critical", "warning") if status in statuses), "passing")
    return Instance(
        id=service["ID"],
        service=service["Service"],
        address=service["Address"],
        port=service["Port"],
        meta=service["Meta"] or {},
        vip=virtual.get("Address", ""),
        status=worst,
    )
