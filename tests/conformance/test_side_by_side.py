"""One HTTP listener, run by our sidecar and by a live Envoy: what a client is answered, what is logged, what becomes of mirrored requests."""

from __future__ import annotations

import asyncio
import contextlib
import re
import string
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from devmesh.runtimes.claims import claim_port
from devmesh.sidecar.config_parse import parse_snapshot
from devmesh.sidecar.listener import SocketSpec
from devmesh.sidecar.proxy import Proxy
from tests.conformance.envoy_mesh import Caller, EnvoyCaller, OurCaller, _Records, free_socket, port_of
from tests.conformance.envoy_process import running_envoy
from tests.support import require

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy.extensions"
LOGGED = {
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}
SECONDS = 60


ANSWER = b"content-length: 2\r\n\r\nok"
# What an app answers at `/told/<name>`.
TOLD = {
    "204": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + ANSWER,
    "hops": b"HTTP/1.1 200 OK\r\nconnection: x-a\r\nx-a: 1\r\nkeep-alive: 5\r\nproxy-connection: x\r\nupgrade: h2c\r\n" + ANSWER,
    "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + ANSWER,
    "own": b"HTTP/1.1 200 OK\r\nserver: mine\r\nvia: 1.1 x\r\nset-cookie: a\r\nset-cookie: b\r\nx-e:\r\nx-request-id: 7\r\n" + ANSWER,
    "strange": b"HTTP/1.1 999 Strange\r\n" + ANSWER,
    "short": b"HTTP/1.1 200\r\n" + ANSWER,
}


class Backend:
    """Answers every request that is whole, but for `/silent`; `ended` gets how a connection ended that was never answered."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[bytes] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return port_of(self._server.sockets[0])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b" /silent" in head:
                    self.ended.put_nowait(await reader.read())
                    break
                if b"transfer-encoding: chunked" in head:
                    await reader.readuntil(b"0\r\n\r\n")
                if b" /echo" in head:
                    writer.write(await self._echo(reader, head))
                elif b" /told/" in head:
                    writer.write(TOLD[head.split(b" ")[1].rpartition(b"/")[2].decode()])
                elif b"content-length: 10" not in head:
                    extra = b"".join(b"x: %d\r\n" % number for number in range(100)) if b" /many" in head else b""
                    coding = b"transfer-encoding: gzip" if b" /gzip" in head else b"content-length: 2"
                    writer.write(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n" + extra + b"\r\nok")
        writer.close()
        self._writers.discard(writer)

    async def _echo(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        """The head that came, but for what is a clock's."""
        length = re.search(rb"content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        body = re.sub(rb"x-envoy-expected-rq-timeout-ms: \d+\r\n", b"", head)
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()


def snapshot(port: int, mirror: int, listening: int, formats: Sequence[Json] = ({"json_format": LOGGED},)) -> Json:
    def static(name: str, *ports: int) -> Json:
        hosts = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}}} for one in ports]
        return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}}

    def route(prefix: str, cluster: str = "app", add: Json | None = None, remove: tuple[str, ...] = (), **action: Any) -> Json:
        edits = [{"header": {"key": k, "value": v}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"} for k, v in (add or {}).items()]
        out: Json = {"match": {"prefix": prefix}, "route": {"cluster": cluster, "timeout": "0s", **action}}
        return {**out, "request_headers_to_add": edits, "request_headers_to_remove": list(remove)}

    copies = {"request_mirror_policies": [{"cluster": "mirror"}]}
    routes = [
        route("/host", host_rewrite_literal="new.example", prefix_rewrite="/z"),
        route("/edited", add={"user-agent": "set", "x-forwarded-for": "192.0.2.1"}),
        route("/removed", remove=("user-agent",)),
        route("/nobody", "empty", host_rewrite_literal="new.example", add={"user-agent": "set"}),
        route("/unknown", "nowhere", host_rewrite_literal="new.example", add={"user-agent": "set"}),
        {"match": {"prefix": "/redirect"}, "redirect": {"host_redirect": "b"}, **{k: v for k, v in route("", add={"user-agent": "set"}).items() if k.startswith("request")}},
        route("/mirrored", **{**copies, "timeout": "0.2s", "prefix_rewrite": "/silent"}),
        route("/"),
    ]  # fmt: skip
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h",
        "request_timeout": "0.2s",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
        "access_log": [
            {"name": "stdout", "typed_config": {"@type": f"{TYPE}.access_loggers.stream.v3.StdoutAccessLog", "log_format": one}} for one in formats
        ],
        "route_config": {"name": "r", "validate_clusters": False, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
    }  # fmt: skip
    listener = {
        "name": f"0.0.0.0_{listening}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": listening}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {"listeners": [listener], "clusters": [static("app", port), static("mirror", mirror), static("empty")]}


@contextlib.asynccontextmanager
async def our_sidecar(port: int, mirror: int) -> AsyncIterator[OurCaller]:
    async with our_sidecar_with(lambda listening: snapshot(port, mirror, listening)) as caller:
        yield caller


@contextlib.asynccontextmanager
async def our_sidecar_with(resources: Callable[[int], Json], **settings: Any) -> AsyncIterator[OurCaller]:
    """`resources` gives a listener at the port that it is told, and clusters."""
    sock = free_socket()
    records = _Records()
    proxy = Proxy(telemetry=records, gateway=True, **settings)
    proxy.apply(parse_snapshot({"version": "1", **resources(port_of(sock))}))
    await proxy.listen([SocketSpec("inbound", "127.0.0.1", port_of(sock), sock)])
    try:
        yield OurCaller(port_of(sock), records)
    finally:
        await proxy.close()


@contextlib.asynccontextmanager
async def live_envoy(
    port: int, mirror: int, directory: Path, formats: Sequence[Json] = ({"json_format": LOGGED},)
) -> AsyncIterator[EnvoyCaller]:
    async with live_envoy_with(lambda listening: snapshot(port, mirror, listening, formats), directory) as caller:
        yield caller


@contextlib.asynccontextmanager
async def live_envoy_with(resources: Callable[[int], Json], directory: Path) -> AsyncIterator[EnvoyCaller]:
    binary = require.envoy()
    listening, held = claim_port()
    with held:  # until Envoy has bound it
        bootstrap = {"static_resources": resources(listening)}
        async with running_envoy(binary, bootstrap, directory, lambda: _accepts(listening), flush_milliseconds=5) as process:
            yield EnvoyCaller(listening, process)


async def _accepts(port: int) -> bool:
    try:
        (await asyncio.open_connection("127.0.0.1", port))[1].close()
    except OSError:
        return False
    return True


async def answered(caller: Caller, data: bytes) -> tuple[list[str], Json]:
    """The answer's lines without clocks, and the log's line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    try:
        writer.write(data)
        async with asyncio.timeout(SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            if head[0] == "HTTP/1.1 100 Continue":
                head += (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            length = next((int(line.partition(": ")[2]) for line in head if line.startswith("content-length")), 0)
            body = (await reader.readexactly(0 if " 304 " in head[0] else length)).decode("latin-1")
        log = await caller.log()
    finally:
        writer.close()
    lines = sorted(line for line in head if not line.startswith(("date", "x-envoy-upstream-service-time")))
    return [*lines, *sorted(body.split("\r\n"))], {key: _plain(log[key]) for key in LOGGED}


def _plain(value: Any) -> Any:
    return None if value in (None, "-") else str(value)


AGENT = "user-agent: me\r\nx-forwarded-for: 192.0.2.9\r\n\r\n"
POST, GET, LAST = "POST /x HTTP/1.1\r\nhost: a\r\n", "GET /x HTTP/1.1\r\n", "0\r\n\r\n"
CODINGS = ("gzip", "identity", "", "gzip, chunked", "chunked\r\ntransfer-encoding: chunked")
MALFORMED = {
    "garbage": "\x16\x03\x01hello\r\n\r\n",
    "101 headers": GET + "host: a\r\n" + "".join(f"x: {number}\r\n" for number in range(100)) + "\r\n",
    "100 headers": GET + "host: a\r\n" + "".join(f"x: {number}\r\n" for number in range(99)) + "\r\n",
    "61 KiB of headers": f"{GET}host: a\r\nx: {'a' * 62_000}\r\n\r\n",
    "no Host": GET + "user-agent: me\r\n\r\n",
    "a Host that Connection names": GET + "host: a\r\nconnection: Host, close\r\n\r\n",
    **{f"{name} that Connection names": f"{GET}host: a\r\nconnection: {name}\r\n\r\n" for name in ("x-forwarded-for", "X-Forwarded-Host", "x-forwarded-proto", "forwarded")},
    "nine names": f"{GET}host: a\r\nconnection: a,b,c,d,e,f,g,h,i\r\n\r\n",
    "ten names": f"{GET}host: a\r\nconnection: a,b,c,d,e,f,g,h,i,close\r\n\r\n",
    "both framings": f"{POST}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{LAST}",
    "two lengths": POST + "content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "a negative length": POST + "content-length: -3\r\n\r\n",
    "no chunk": POST + "transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "white space before the colon": GET + "host : a\r\n\r\n",
    "no path": "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "a tunnel": "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
    "an upgrade nobody allows": GET + "host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "an upgrade to h2c": GET + "host: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n\r\n",
    **{f"coding {coding!r}": f"{POST}transfer-encoding: {coding}\r\n\r\n{LAST}" for coding in CODINGS},
    **{f"version {version}": f"GET /x {version}\r\nhost: a\r\n\r\n" for version in ("HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1")},
    **{f"a value with {character!r}": f"{GET}host: a\r\nx: a{character}b\r\n\r\n" for character in "\0\x01\x1f\x7f\t\x80"},
    **{f"a Host with {character!r}": f"{GET}host: a{character}b\r\n\r\n" for character in string.punctuation + "\x80"},
    **{f"a name with {character!r}": f"{GET}host: a\r\nx{character}y: b\r\n\r\n" for character in string.punctuation},
}  # fmt: skip
ECHO = "GET /echo HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\n"
ECHO_POST = "POST /echo HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\n"
# What the app gets to see.
FORWARDED = {
    "te with trailers": ECHO + "te: gzip, trailers\r\n\r\n",
    "te with Trailers": ECHO + "te: gzip, Trailers\r\n\r\n",
    "te": ECHO + "te: gzip\r\n\r\n",
    "te that Connection names": ECHO + "connection: te\r\nte: trailers\r\n\r\n",
    "credentials for a proxy": ECHO + "proxy-authorization: x\r\nproxy-authenticate: y\r\n\r\n",
    "other hops": ECHO + "connection: keep-alive, x-a\r\nx-a: 1\r\nkeep-alive: 5\r\nproxy-connection: x\r\n\r\n",
    "forwarded": ECHO + "x-forwarded-host: z\r\nforwarded: for=1\r\nx-forwarded-port: 1\r\nx-forwarded-proto: https\r\n\r\n",
    "lines": ECHO + "cookie: a=1\r\ncookie: b=2\r\nx-a: 1\r\nx-a: 2\r\nx-e:\r\nx-s: \t a \t\r\nX-UPPER: V\r\n\r\n",
    "expectation": ECHO_POST + "expect: 100-Continue\r\ncontent-length: 2\r\n\r\nok",
    "another expectation": ECHO_POST + "expect: more\r\ncontent-length: 2\r\n\r\nok",
    "fragment": "GET /echo?a#b HTTP/1.1\r\nhost: a\r\n\r\n",
    **{f"{method} without a body": ECHO.replace("GET", method) + "\r\n" for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")},
}  # fmt: skip
CONVERSATIONS = {
    **MALFORMED,
    **FORWARDED,
    **{f"told {name}": f"GET /told/{name} HTTP/1.1\r\nhost: a\r\n\r\n" for name in TOLD},
    "chunks with an extension": f"{POST}transfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n{LAST}",
    "an answer of 101 headers": "GET /many HTTP/1.1\r\nhost: a\r\n\r\n",
    "an answer in gzip coding": "GET /gzip HTTP/1.1\r\nhost: a\r\n\r\n",
    "half a body": "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf",
    "half a head": "POST /x HTTP/1.1\r\nhost: a\r\n",
    "half a gRPC message": "POST /x HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\nhalf",
    "a request that is whole": "GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
    **{
        name: f"GET /{name} HTTP/1.1\r\nhost: old.example:80\r\n{AGENT}"
        for name in ("host", "edited", "removed", "nobody", "unknown", "redirect")
    },
}


@contextlib.asynccontextmanager
async def running(which: str, directory: Path) -> AsyncIterator[tuple[Caller, Backend]]:
    app, mirror = Backend(), Backend()
    ports = (await app.start(), await mirror.start())
    try:
        async with our_sidecar(*ports) if which == "ours" else live_envoy(*ports, directory) as caller:
            yield caller, mirror
    finally:
        app.stop()
        mirror.stop()


async def test_both_answer_and_log_alike(tmp_path: Path) -> None:
    found: Json = {"ours": {}, "envoy": {}}
    for which, answers in found.items():
        async with running(which, tmp_path) as (caller, _):
            for name, data in CONVERSATIONS.items():
                answers[name] = await answered(caller, data.encode("latin-1"))
    for name, theirs in found["envoy"].items():
        assert found["ours"][name] == theirs, name
    assert found["ours"]["half a body"][1]["response_code_details"] == "request_overall_timeout"
    assert found["ours"]["host"][1]["authority"] == "new.example"


# Istio's default format (pkg/config/mesh's accessLogFormat), in text and in JSON.
ISTIO_TEXT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% '
    '%CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" '
    '"%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% '
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
ISTIO_JSON = {
    "start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%", "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%", "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%", "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%", "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%", "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}  # fmt: skip
LOGGED_BYTES = [
    b'GET /x?a="q\\ HTTP/1.1\r\nhost: a\r\nuser-agent: m"e\\\r\nx-request-id: 1\r\n\r\n',
    b"GET /nobody HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\nx-forwarded-for: 192.0.2.9\r\n\r\n",
    "GET /x HTTP/1.1\r\nhost: a\r\nuser-agent: \u00e9\u2028\t1<>&'/\r\nx-request-id: 1\r\n\r\n".encode(),
    b"GET /x HTTP/1.1\r\nhost: a\r\nuser-agent: a\xe9b\xff\xc3\r\nx-request-id: 1\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: \r\nuser-agent:\r\nx-request-id: \r\n\r\n",
    b"GET /x HTTP/1.1\r\nuser-agent: me\r\n\r\n",
    b"GET /x HTTP/1.0\r\nhost: a\r\n\r\n",
    b"garbage\r\n\r\n",
    *(
        b"GET /x HTTP/1.1\r\nhost: a\r\nx-forwarded-for: " + forwarded + b"\r\n\r\n"
        for forwarded in (
            b"192.0.2.9, 192.0.2.8", b"192.0.2.9,garbage", b"garbage ,\t192.0.2.9 ", b"192.0.2.9:80", b"2001:DB8::1", b"[2001:db8::1]",
            b"::ffff:192.0.2.1", b"192.0.2.9,", b"", b"192.0.2.9\r\nx-forwarded-for: 192.0.2.8", b"192.0.2.09", b"fe80::1%1", b"192.0.2.0/24",
        )
    ),
]  # fmt: skip
# Ports, times and generated ids.
CHANGING = re.compile(
    rb'127\.0\.0\.1:\d+|\d{4}-[0-9T:.-]{18,19}Z|[0-9a-f]{8}-[0-9a-f-]{27}|(?<=ion":)\d+|(?<=time":")\d+|(?<=" \d \d )\d+ \d+|(?<=" \d \d\d )\d+'
)


async def _log_lines(caller: OurCaller | EnvoyCaller, data: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
    writer.write(data)
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        lines = await caller.lines()
    writer.close()
    return [CHANGING.sub(b"_", line) for line in lines]


async def test_access_logs_are_the_same_bytes(tmp_path: Path) -> None:
    formats = ({"text_format_source": {"inline_string": ISTIO_TEXT}}, {"json_format": ISTIO_JSON})
    app = Backend()
    port = await app.start()
    try:
        async with our_sidecar(port, port) as ours, live_envoy(port, port, tmp_path, formats) as envoy:
            for data in LOGGED_BYTES:
                assert await _log_lines(ours, data) == await _log_lines(envoy, data), data
    finally:
        app.stop()


@pytest.mark.parametrize("which", ["ours", "envoy"])
async def test_a_mirrored_request_is_given_up_at_the_routes_timeout(which: str, tmp_path: Path) -> None:
    """The app never answers either: the caller is told, and the mirror's connection ends."""
    async with running(which, tmp_path) as (caller, mirror):
        lines, log = await answered(caller, b"GET /mirrored HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (lines[0], log["response_flags"]) == ("HTTP/1.1 504 Gateway Timeout", "UT")
        async with asyncio.timeout(SECONDS):
            assert await mirror.ended.get() == b""
