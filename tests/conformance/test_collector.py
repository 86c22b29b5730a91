"""Jaeger's query APIs, the part of v3 that devmesh uses and v1: one suite, the collector and a real Jaeger.

Jaeger 2.13's HTTP gateway ignores `query.attributes`, and its memory store finds no failed span by `error=true`; the collector's own tests have both.
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
from aiohttp import web

from devmesh.collector.client import find_request, get_trace, list_traces
from devmesh.errors import DevmeshError
from devmesh.runtimes.claims import PortClaims
from tests.collector.sample import TRACE, Urls, attribute, collector, request, span
from tests.support.require import tool

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER = "0af7651916cd43dd8448eb211c80319d"
START = time.time_ns() // 10**9 * 10**9
TYPED = [
    {"key": "text", "value": {"stringValue": "x"}},
    {"key": "yes", "value": {"boolValue": True}},
    {"key": "number", "value": {"intValue": "7"}},
    {"key": "large", "value": {"intValue": "9007199254740993"}},
    {"key": "half", "value": {"doubleValue": 0.5}},
    {"key": "bytes", "value": {"bytesValue": "AAE="}},
    {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "<a>"}, {"intValue": "1"}]}}},
    {
        "key": "map",
        "value": {"kvlistValue": {"values": [{"key": "b", "value": {"boolValue": False}}, {"key": "a", "value": {"stringValue": "&"}}]}},
    },
]
# by name, in which order Jaeger answers v3 (and keeps them)
EVENTS = [
    {"timeUnixNano": str(START + 10**9), "name": "again", "attributes": [attribute("zone", "z"), attribute("attempt", "2")]},
    {"timeUnixNano": str(START + 10**9 + 2 * 10**6), "name": "named", "attributes": [attribute("a", "b"), attribute("event", "own")]},
]
LINKS = [{"traceId": TRACE, "spanId": "b7ad6b7169203331"}]
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
    with PortClaims() as ports:
        query, grpc, otlp = (ports.prefer(0) for _ in range(3))
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
                process.kill()  # it would take ten seconds to leave by itself
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
    # All that v1 has other words for: values of every type, events, links, a state, a scope with a version.
    detailed = {"kind": 2, "attributes": TYPED, "events": EVENTS, "links": LINKS, "traceState": "a=b", "status": {"code": 1}}
    second = request(front=[span("b7ad6b7169203333", "GET /other", START + 10**9, 2, OTHER, **detailed)])
    second["resourceSpans"][0]["resource"]["attributes"].append(attribute("host.name", "h"))
    second["resourceSpans"][0]["scopeSpans"][0]["scope"]["version"] = "1.2"
    async with aiohttp.ClientSession() as session:
        for body in (first, second):
            async with session.post(urls.otlp, json=body) as response:
                assert response.status == 200
                assert await response.json(content_type=None) == {"partialSuccess": {}}
    async with asyncio.timeout(60):
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


# -- API v3 ------------------------------------------------------------------------------------------------------------


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


# -- API v1 ------------------------------------------------------------------------------------------------------------

WINDOW = {"start": "0", "end": str(START // 1000 + 3600 * 10**6)}


async def v1(urls, path, **query):
    """Status and body, whose spans are by id and name their process by what it is: Jaeger keeps no order among them."""
    status, body = await get(urls, path, **query)
    assert {"data", "total", "limit", "offset", "errors"} == body.keys()
    for trace in body["data"] or () if path.startswith("/api/traces") else ():
        for one in trace["spans"]:
            one["processID"] = trace["processes"][one["processID"]]["serviceName"]
        trace["spans"].sort(key=lambda one: one["spanID"])
        trace["processes"] = {process["serviceName"]: process for process in trace["processes"].values()}
    return status, body


def tag(key, kind, value):
    return {"key": key, "type": kind, "value": value}


async def test_v1_services(urls):
    status, body = await v1(urls, "/api/services")
    assert (status, sorted(body.pop("data"))) == (200, ["back", "front"])
    assert body == {"total": 2, "limit": 0, "offset": 0, "errors": None}


async def test_v1_names_of_operations(urls):
    status, body = await v1(urls, "/api/services/front/operations")
    assert (status, sorted(body["data"]), body["total"]) == (200, ["GET /", "GET /other"], 2)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"service": "front"}, [("GET /", "server"), ("GET /other", "server")]),
        ({"service": "back", "spanKind": "client"}, [("GET /b", "client")]),
        ({"service": "back", "spanKind": "server"}, []),
    ],
)
async def test_v1_operations(urls, query, expected):
    status, body = await v1(urls, "/api/operations", **query)
    assert (status, sorted((one["name"], one["spanKind"]) for one in body["data"]), body["total"]) == (200, expected, len(expected))


async def test_v1_operations_of_no_service(urls):
    status, body = await v1(urls, "/api/operations")
    assert (status, body["data"], body["errors"]) == (400, None, [{"code": 400, "msg": "parameter 'service' is required"}])


async def test_v1_a_trace_with_an_error_and_a_child(urls):
    status, body = await v1(urls, f"/api/traces/{TRACE}")
    assert (status, body["total"], body["errors"]) == (200, 0, None)
    [trace] = body["data"]
    scope = tag("otel.scope.name", "string", "test")
    error = [
        tag("error", "bool", True),
        scope,
        tag("otel.status_code", "string", "ERROR"),
        tag("otel.status_description", "string", "boom"),
    ]
    common = {"traceID": TRACE, "logs": [], "warnings": None}
    assert trace == {
        "traceID": TRACE,
        "processes": {name: {"serviceName": name, "tags": []} for name in ("front", "back")},
        "warnings": None,
        "spans": [
            common
            | {"spanID": "b7ad6b7169203331", "operationName": "GET /", "references": [], "startTime": START // 1000, "duration": 100_000}
            | {"tags": [*error, tag("span.kind", "string", "server"), tag("x", "string", "y")], "processID": "front"},
            common
            | {"spanID": "b7ad6b7169203332", "operationName": "GET /b", "startTime": START // 1000 + 10_000, "duration": 10_000}
            | {"references": [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": "b7ad6b7169203331"}]}
            | {"tags": [scope, tag("span.kind", "string", "client")], "processID": "back"},
        ],
    }


async def test_v1_values_of_every_type_events_and_links(urls):
    _, body = await v1(urls, f"/api/traces/{OTHER}")
    [trace] = body["data"]
    [only] = trace["spans"]
    assert trace["processes"]["front"]["tags"] == [tag("host.name", "string", "h")]
    assert only["tags"] == [
        tag("bytes", "binary", "AAE="),
        tag("half", "float64", 0.5),
        tag("large", "int64", "9007199254740993"),
        tag("list", "string", '["\\u003ca\\u003e",1]'),
        tag("map", "string", '{"a":"\\u0026","b":false}'),
        tag("number", "int64", 7),
        tag("otel.scope.name", "string", "test"),
        tag("otel.scope.version", "string", "1.2"),
        tag("otel.status_code", "string", "OK"),
        tag("span.kind", "string", "server"),
        tag("text", "string", "x"),
        tag("w3c.tracestate", "string", "a=b"),
        tag("yes", "bool", True),
    ]
    assert only["references"] == [{"refType": "FOLLOWS_FROM", "traceID": TRACE, "spanID": "b7ad6b7169203331"}]
    micros = START // 1000 + 10**6
    again = [tag("event", "string", "again"), tag("attempt", "string", "2"), tag("zone", "string", "z")]
    assert only["logs"] == [
        {"timestamp": micros, "fields": again},
        {"timestamp": micros + 2000, "fields": [tag("event", "string", "own"), tag("a", "string", "b")]},
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {TRACE, OTHER}),
        ({"limit": "1"}, {OTHER}),
        ({"lookback": "1h"}, {TRACE, OTHER}),
        ({"service": "back"}, {TRACE}),
        ({"service": "none"}, set()),
        ({"operation": "GET /other"}, {OTHER}),
        ({"minDuration": "1s"}, {OTHER}),
        ({"maxDuration": "500ms"}, {TRACE}),
        ({"start": str(START // 1000 + 500_000)}, {OTHER}),
        ({"end": str(START // 1000 + 500_000)}, {TRACE}),
        ({"tags": '{"x":"y"}'}, {TRACE}),
        ({"tag": "x:y"}, {TRACE}),
        ({"tags": '{"number":"7","yes":"true"}'}, {OTHER}),
        ({"tags": '{"host.name":"h"}'}, {OTHER}),
        ({"tags": '{"zone":"z"}'}, {OTHER}),
        ({"tags": '{"x":"z"}'}, set()),
        ({"service": "", "traceID": TRACE}, {TRACE}),
    ],
)
async def test_v1_search(urls, query, expected):
    status, body = await v1(urls, "/api/traces", **{"service": "front"} | WINDOW | query)
    assert (status, {trace["traceID"] for trace in body["data"]}, body["errors"]) == (200, expected, None)


async def test_v1_without_times_means_the_last_days(urls):
    status, body = await v1(urls, "/api/traces", service="front")
    assert (status, TRACE in {trace["traceID"] for trace in body["data"]}) == (200, True)


@pytest.mark.parametrize(
    "query",
    [
        {"service": ""},
        {"start": "x"},
        {"end": "1.5"},
        {"limit": "x"},
        {"minDuration": "5"},
        {"minDuration": "2s", "maxDuration": "1s"},
        {"tag": "novalue"},
        {"tags": "{"},
        {"tags": '{"a":1}'},
        {"traceID": "zz"},
    ],
)
async def test_v1_a_search_that_cannot_be_read(urls, query):
    status, body = await v1(urls, "/api/traces", **{"service": "front"} | query)
    assert (status, body["data"], [one["code"] for one in body["errors"]]) == (400, None, [400])


async def test_v1_traces_by_id_name_those_that_are_missing(urls):
    status, body = await v1(urls, "/api/traces", traceID="f" * 32)
    assert (status, body["data"], body["errors"]) == (200, [], [{"msg": "trace not found", "traceID": "f" * 32}])


@pytest.mark.parametrize(("trace_id", "status"), [("f" * 32, 404), ("f" * 33, 400), ("zz", 400)])
async def test_v1_a_trace_that_is_not_there(urls, trace_id, status):
    found, body = await v1(urls, f"/api/traces/{trace_id}")
    assert (found, body["data"], [one["code"] for one in body["errors"]]) == (status, None, [status])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [{"parent": "front", "child": "back", "callCount": 1}]),
        ({"service": "back"}, [{"parent": "front", "child": "back", "callCount": 1}]),
        ({"service": "none"}, []),
        ({"lookback": "1"}, []),
    ],
)
async def test_v1_dependencies(urls, query, expected):
    status, body = await v1(urls, "/api/dependencies", **{"endTs": str(START // 10**6 + 3_600_000), "lookback": "7200000"} | query)
    assert (status, body["data"]) == (200, expected)


@pytest.mark.parametrize("query", [{"endTs": "x"}, {"lookback": "1h"}])
async def test_v1_dependencies_that_cannot_be_read(urls, query):
    status, _ = await v1(urls, "/api/dependencies", **query)
    assert status == 400


# -- The command line's client -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def without_v3(url, answer):
    """A server of API v1 alone: what it asks of `url` it answers alike, paths of v3 with `answer`."""

    async def forward(asked):
        if asked.path.startswith("/api/v3"):
            return answer()
        async with aiohttp.ClientSession() as session, session.get(f"{url}{asked.path_qs}") as response:
            return web.Response(status=response.status, body=await response.read(), content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await web.SockSite(runner, sock).start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    "answer", [lambda: web.Response(status=404, text="404 page not found\n"), lambda: web.Response(text="<!doctype html>")]
)
async def test_the_client_finds_the_same_by_v1_where_v3_is_not_served(urls, answer):
    async with without_v3(urls.query, answer) as old:
        assert await list_traces(old) == await list_traces(urls.query)
        assert await list_traces(old, errors_only=True) == await list_traces(urls.query, errors_only=True)
        assert await get_trace(old, TRACE) == await get_trace(urls.query, TRACE)
        with pytest.raises(DevmeshError, match="no trace"):
            await get_trace(old, "f" * 32)


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


async def test_the_client_leaves_out_the_meshs_own_servers_unless_asked(urls, monkeypatch):
    monkeypatch.setattr("devmesh.collector.client.OWN_SERVICES", ("front", "back"))
    assert await list_traces(urls.query) == []
    assert {trace.trace_id for trace in await list_traces(urls.query, own=True)} == {TRACE, OTHER}
    assert {trace.trace_id for trace in await list_traces(urls.query, "front")} == {TRACE, OTHER}, "by its name"


async def test_the_client_finds_a_request_by_its_id(urls, monkeypatch):
    monkeypatch.setattr("devmesh.collector.client.REQUEST_ID", "x")
    assert await find_request(urls.query, "y") == TRACE
    with pytest.raises(DevmeshError, match="no trace of request z among the newest"):
        await find_request(urls.query, "z")


async def test_the_client_gets_a_trace(urls):
    parent, child = await get_trace(urls.query, TRACE)
    assert (parent.parent_id, parent.kind, parent.error, parent.attributes) == ("", "server", True, {"x": "y"})
    assert (child.parent_id, child.service, child.name, child.kind, child.duration) == (parent.span_id, "back", "GET /b", "client", 0.01)
    with pytest.raises(DevmeshError, match="no trace"):
        await get_trace(urls.query, "f" * 32)
