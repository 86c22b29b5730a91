"""One request, and what its caller saw."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

# Response headers that differ by clock or chance.
VOLATILE = frozenset({"date", "x-envoy-upstream-service-time", "x-request-id"})
# Headers by which proxies steer and inform each other.
INTERNAL = dict.fromkeys(
    (
        "x-envoy-internal", "x-envoy-external-address", "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node", "x-envoy-expected-rq-timeout-ms", "x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-max-retries",
        "x-envoy-original-path", "x-envoy-original-host", "x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-retriable-header-names",
        "x-envoy-retriable-status-codes", "x-envoy-upstream-alt-stat-name", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-is-timeout-retry",
        "x-envoy-upstream-rq-timeout-alt-response", "x-envoy-upstream-rq-timeout-ms", "x-envoy-hedge-on-per-try-timeout", "x-envoy-attempt-count",
        "x-envoy-upstream-stream-duration-ms", "x-envoy-overloaded", "x-envoy-degraded", "x-envoy-foo",
    ),
    "1",
)  # fmt: skip
GENERATED_COOKIE = re.compile(r'="[0-9a-f]+"')
SECONDS = 60
CLIENT = "127.0.0.9"


@dataclass(frozen=True)
class Request:
    method: str
    url: str  # http://<host of the topology>:<port>/...
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    @property
    def target(self) -> str:
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True)
class Way:
    """How a connection gets to where it was redirected from: the preamble tells Envoy, the absolute form tells a sidecar's proxy port.

    `redirected` connects where the kernel does it: in a pod.
    """

    port: int
    preamble: bytes = b""
    absolute: bool = False
    redirected: Callable[[], socket.socket] | None = None


@dataclass
class Answer:
    """What the caller saw and what the app that answered saw; a status of 0 is a connection that was refused."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    reason: str = ""
    reached: str = ""
    app_saw: dict[str, Any] = field(default_factory=dict)
    certificate: bytes = b""  # the server's, DER
    alpn: str = ""

    def comparable(self) -> dict[str, Any]:
        headers = {k: v for k, v in self.headers.items() if k not in VOLATILE and k != "content-length"}
        if "set-cookie" in headers:
            headers["set-cookie"] = GENERATED_COOKIE.sub('="..."', headers["set-cookie"])
        said = {"status": self.status, "reason": self.reason, "headers": headers}
        return {**said, "app": {k: v for k, v in self.app_saw.items() if k != "workload"}} if self.reached else {**said, "body": self.body}


REFUSED = Answer(0)


async def ask(way: Way, request: Request) -> Answer:
    """On a connection of its own."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await _connect(way)
        try:
            if request.tls is not None:
                await writer.start_tls(request.tls, server_hostname=request.server_name or None)
            writer.write(_bytes_of(request, request.url if way.absolute else request.target))
            return _with_tls(await answer(reader, request.method), writer)
        except (asyncio.IncompleteReadError, OSError):
            return REFUSED
        finally:
            writer.close()


def _with_tls(found: Answer, writer: asyncio.StreamWriter) -> Answer:
    session = writer.get_extra_info("ssl_object")
    if session is None:
        return found
    return replace(found, certificate=session.getpeercert(binary_form=True), alpn=session.selected_alpn_protocol() or "")


async def _connect(way: Way) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """From an address that is not 127.0.0.1, in whose place Envoy puts one of the machine's own into x-forwarded-for."""
    if way.redirected is not None:
        return await asyncio.open_connection(sock=await asyncio.to_thread(way.redirected))
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port, local_addr=(CLIENT, 0))
    writer.write(way.preamble)
    return reader, writer


def _bytes_of(request: Request, target: str) -> bytes:
    headers = {"host": urlsplit(request.url).netloc, **request.headers}
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if request.body:
        lines.append(f"content-length: {len(request.body)}")
    return ("\r\n".join([*lines, "", ""]) + request.body).encode()


async def ask_often(way: Way, request: Request, times: int) -> list[Answer]:
    """One after the other on one connection, for what chance decides."""
    reader, writer = await _connect(way)
    answers = []
    try:
        for _ in range(times):
            writer.write(_bytes_of(request, request.url if way.absolute else request.target))
            async with asyncio.timeout(SECONDS):
                answers.append(await answer(reader, request.method))
    finally:
        writer.close()
    return answers


async def answer(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(":") for line in head[1:] if line)}
    headers = {name: value.strip() for name, value in headers.items()}
    payload = b""
    if method != "HEAD" and headers.get("transfer-encoding") == "chunked":
        payload = await _chunks(reader)
    elif method != "HEAD" and headers.get("content-length"):
        payload = await reader.readexactly(int(headers["content-length"]))
    text = payload.decode()
    app = json.loads(text) if "x-app" in headers and text.startswith("{") else {}
    _, status, reason = head[0].split(" ", 2)
    return Answer(int(status), headers, text, reason, headers.pop("x-app", ""), app)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    out = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        out += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return out
