"""Apps that do what each request tells them, attempt by attempt, and say on the answer what they got, line by line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.square.apps import Echo, Places, topology
from tests.square.certificates import Certificates

# Request headers that differ by chance, or that only one of the two sends (docs/differences.md).
VOLATILE = frozenset(
    {"grpc-timeout", "x-request-id", "traceparent", "tracestate", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-envoy-expected-rq-timeout-ms",
     "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-parentspanid"}
)  # fmt: skip
Lines = list[tuple[str, str]]
# Lines of an answer, besides those that every one has.
STEPS: dict[str, tuple[int, Lines]] = {
    "limited": (503, [("x-envoy-ratelimited", "true")]),
    "grpc-14": (200, [("grpc-status", "14"), ("content-type", "application/grpc")]),
    "hops": (200, [("connection", "x-told"), ("keep-alive", "5"), ("via", "1.1 x"), ("x-envoy-foo", "1"), ("x-envoy-upstream-service-time", "9"), ("x-envoy-attempt-count", "3")]),
    "302": (302, [("location", "http://reviews:9080/there"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]),
}  # fmt: skip
EVERY: Lines = [
    ("x-told", "yes"),
    ("X-App-Lines", "1"),
    ("x-app-lines", "2"),
    ("server", "app"),
    ("content-type", "text/plain"),
    ("access-control-allow-origin", "app"),
]


def joined(lines: Lines) -> dict[str, str]:
    """A repeated name's lines as one, which is what some of them become (RFC 9110 section 5.3)."""
    out: dict[str, str] = {}
    for name, value in lines:
        out[name] = f"{out[name]},{value}" if out.get(name) and value else out.get(name) or value
    return out


@dataclass
class Told:
    """What became of the requests, by `x-ask`."""

    attempts: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Scripted(Echo):
    told: Told = field(default_factory=Told)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
        headers = dict(pairs)
        body = await self._body(reader, headers)
        seen = self.told.attempts.setdefault(headers.get("x-ask", ""), [])
        seen.append({"line": head[0], "headers": joined([pair for pair in pairs if pair[0] not in VOLATILE]), "body": body})
        steps = headers.get("x-script", "200").split(",")
        await self._do(steps[min(len(seen), len(steps)) - 1], head[0].startswith("HEAD"), writer)

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> str:
        if headers.get("transfer-encoding") != "chunked":
            return (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        out = b""
        while size := int(await reader.readline(), 16):
            out += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return out.decode()

    async def _do(self, step: str, of_head: bool, writer: asyncio.StreamWriter) -> None:
        if step == "never":
            await asyncio.get_running_loop().create_future()
        if step == "reset":
            raise ConnectionResetError
        status, more = STEPS.get(step) or (int(step), [])
        body = b"" if status in (204, 304) else f"said {step}".encode()
        lines = [*EVERY, *more] + ([("content-length", str(len(body)))] if status not in (204, 304) else [])
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + (b"" if of_head else body))
        await writer.drain()


@contextlib.asynccontextmanager
async def scripted_apps(certificates: Certificates) -> AsyncIterator[tuple[Places, Told]]:
    """One for every workload of the square."""
    places, told = Places(), Told()
    found = [Scripted(one.name, places.of[one.ip], certificates.app(one.spiffe_id), told=told) for one in topology().workloads]
    for one in found:
        one.start()
    try:
        yield places, told
    finally:
        for one in found:
            await one.stop()
