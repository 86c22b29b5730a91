"""The part of Jaeger's API v3 that devmesh uses: one suite, the collector and a real Jaeger.

Jaeger 2.13's HTTP gateway ignores `query.attributes`; the collector's own tests have it.
"""

import asyncio
import contextlib
import json
import socket
import time
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio

from devmesh.collector.client import get_trace, list_traces
from devmesh.errors import DevmeshError
from tests.collector.sample import TRACE, Urls, attribute, collector, request, span
from tests.support.require import tool

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER = "0af7651916cd43dd8448eb211c80319d"
START = time.time_ns() // 10**9 * 10**9
JAEGER = """
service: {extensions: [jaeger_storage, jaeger_query], pipelines: {traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}}, telemetry: {metrics: {level: none}}}
extensions:
  jaeger_query: {storage: {traces: memory}, http: {endpoint: "127.0.0.1:%d"}, grpc: {endpoint: "127.0.0.1:%d"}}
  jaeger_storage: {backends: {memory: {memory: {max_traces: 1000}}}}
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}}
exporters: {jaeger_storage_exporter: {trace_storage: memory}}
"""


@contextlib.asynccontextmanager
async def jaeger(binary, directory):
    with contextlib.ExitStack() as held:
        listening = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        query, grpc, otlp = (sock.getsockname()[1] for sock in listening)
    config = directory / "jaeger.yaml"
    config.write_text(JAEGER % (query, grpc, otlp))
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(binary, "--config", config, stdout=log, stderr=log)
    try:
        urls = Urls(f"http://127.0.0.1:{otlp}/v1/traces", f"http://127.0.0.1:{query}")
        await answering(urls, process, directory / "log")
        yield urls
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def answering(urls, process, log):
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        for url in (urls.query, urls.otlp):
            while True:
                assert process.returncode is None, log.read_text()
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(url):
                        break
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(params=["embedded", "jaeger"], scope="module", loop_scope="module")
async def urls(request, tmp_path_factory):
    running = collector() if request.param == "embedded" else jaeger(tool("jaeger", "jaeger"), tmp_path_factory.mktemp("jaeger"))
    async with running as found:
        await fill(found)
        yield found


async def fill(urls):
    failed = {"kind": 2, "status": {"code": 2, "message": "boom"}, "attributes": [attribute("x", "y")]}
    first = request(
        front=[span("b7ad6b7169203331", "GET /", START, 0.1, **failed)],
        back=[span("b7ad6b7169203332", "GET /b", START + 10**7, 0.01, parentSpanId="b7ad6b7169203331", kind=3)],
    )
    second = request(front=[span("b7ad6b7169203333", "GET /other", START + 10**9, 2, OTHER, kind=2)])
    async with aiohttp.ClientSession() as session:
        for body in (first, second):
            async with session.post(urls.otlp, json=body) as response:
                assert response.status == 200
                assert await response.json(content_type=None) == {"partialSuccess": {}}
    async with asyncio.timeout(10):
        while len(await list_traces(urls.query, "front")) < 2:
            await asyncio.sleep(0.02)


async def get(urls, path, **query):
    async with aiohttp.ClientSession() as session, session.get(urls.query + path, params=query) as response:
        return response.status, json.loads(await response.text())


async def search(urls, **query):
    window = {"query.start_time_min": "1970-01-02T00:00:00Z", "query.start_time_max": "2200-01-01T00:00:00Z", "query.num_traces": "10"}
    status, body = await get(urls, "/api/v3/traces", **window | {f"query.{name}": value for name, value in query.items()})
    groups = body.get("result", {}).get("resourceSpans", [])
    return status, {found["traceId"] for group in groups for scoped in group["scopeSpans"] for found in scoped["spans"]}


async def test_services(urls):
    status, body = await get(urls, "/api/v3/services")
    assert (status, sorted(body["services"])) == (200, ["back", "front"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"service": "front"}, {("GET /", "server"), ("GET /other", "server")}),
        ({"service": "back", "span_kind": "client"}, {("GET /b", "client")}),
        ({"service": "back", "span_kind": "server"}, set()),
        ({"service": "none"}, set()),
        ({}, set()),
    ],
)
async def test_operations(urls, query, expected):
    status, body = await get(urls, "/api/v3/operations", **query)
    assert status == 200
    assert {(one["name"], one["spanKind"]) for one in body["operations"]} == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"service_name": "front"}, {TRACE, OTHER}),
        ({"service_name": "front", "num_traces": "1"}, {OTHER}),
        ({"service_name": "back"}, {TRACE}),
        ({"service_name": "front", "operation_name": "GET /other"}, {OTHER}),
        ({"service_name": "front", "duration_min": "1s"}, {OTHER}),
        ({"service_name": "front", "duration_max": "500ms"}, {TRACE}),
        (
            {"service_name": "front", "start_time_min": datetime.fromtimestamp(START / 1e9 + 0.5, UTC).isoformat().replace("+00:00", "Z")},
            {OTHER},
        ),
    ],
)
async def test_search(urls, query, expected):
    assert await search(urls, **query) == (200, expected)


@pytest.mark.parametrize("query", [{"service_name": "none"}, {"service_name": "front", "operation_name": "none"}])
async def test_a_search_that_finds_nothing(urls, query):
    assert await search(urls, **query) == (404, set())


@pytest.mark.parametrize("query", [{"duration_min": "bad"}, {"start_time_min": "bad"}])
async def test_a_search_that_cannot_be_read(urls, query):
    status, _ = await search(urls, service_name="front", **query)
    assert status == 400


async def test_a_trace_is_otlp_json(urls):
    status, body = await get(urls, f"/api/v3/traces/{TRACE}")
    assert status == 200
    front, back = sorted(body["result"]["resourceSpans"], key=lambda group: len(group["scopeSpans"][0]["spans"][0].get("parentSpanId", "")))
    assert front == {
        "resource": {"attributes": [attribute("service.name", "front")]},
        "scopeSpans": [
            {
                "scope": {"name": "test"},
                "spans": [
                    span("b7ad6b7169203331", "GET /", START, 0.1)
                    | {"kind": 2, "attributes": [attribute("x", "y")], "status": {"code": 2, "message": "boom"}}
                ],
            }
        ],
    }
    assert back["scopeSpans"][0]["spans"][0]["parentSpanId"] == "b7ad6b7169203331"
    assert back["scopeSpans"][0]["spans"][0]["status"] == {}


@pytest.mark.parametrize(("trace_id", "status"), [("f" * 32, 404), ("zz", 400)])
async def test_a_trace_that_is_not_there(urls, trace_id, status):
    found, body = await get(urls, f"/api/v3/traces/{trace_id}")
    assert (found, body["error"]["httpCode"]) == (status, status)
    assert body["error"]["message"]


@pytest.mark.parametrize("service", [None, "front"])
async def test_the_client_lists_the_newest_first(urls, service):
    other, first = await list_traces(urls.query, service)
    assert (first.trace_id, first.duration, first.services, first.spans, first.error) == (TRACE, 0.1, ["back", "front"], 2, True)
    assert first.root == "front: GET /"
    assert first.start == datetime.fromtimestamp(START / 1e9, UTC)
    assert (other.trace_id, other.duration, other.error) == (OTHER, 2, False)


async def test_the_client_limits_and_filters(urls):
    assert [trace.trace_id for trace in await list_traces(urls.query, limit=1)] == [OTHER]
    assert [trace.trace_id for trace in await list_traces(urls.query, limit=1, errors_only=True)] == [TRACE]
    assert await list_traces(urls.query, "none") == []


async def test_the_client_gets_a_trace(urls):
    parent, child = await get_trace(urls.query, TRACE)
    assert (parent.parent_id, parent.kind, parent.error, parent.attributes) == ("", "server", True, {"x": "y"})
    assert (child.parent_id, child.service, child.name, child.kind, child.duration) == (parent.span_id, "back", "GET /b", "client", 0.01)
    with pytest.raises(DevmeshError, match="no trace"):
        await get_trace(urls.query, "f" * 32)
