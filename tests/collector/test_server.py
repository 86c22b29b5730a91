"""Bodies in every encoding, refusals, the guard and the page."""

import gzip
import io
import json
import time

import aiohttp
import pytest
import pytest_asyncio
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from devmesh.collector.client import get_trace
from devmesh.errors import DevmeshError
from tests.collector.sample import TOKEN, TRACE, collector, request, span

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
GZIP = {"Content-Encoding": "gzip"}
START = time.time_ns()
BODY = json.dumps(request(front=[span("b7ad6b7169203331", "GET /", START, 0.1)])).encode()


@pytest_asyncio.fixture
async def urls():
    async with collector() as running:
        yield running


@pytest_asyncio.fixture
async def session():
    async with aiohttp.ClientSession() as one:
        yield one


async def test_protobuf_round_trip(urls, session):
    message = ExportTraceServiceRequest()
    ParseDict({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "GET /", "kind": 2}]}]}]}, message)
    sent = message.resource_spans[0].scope_spans[0].spans[0]
    sent.trace_id, sent.span_id, sent.start_time_unix_nano, sent.end_time_unix_nano = bytes.fromhex(TRACE), b"12345678", 1_000, 5_001_000
    sent.attributes.add(key="n").value.int_value = 7
    async with session.post(urls.otlp, data=gzip.compress(message.SerializeToString()), headers=PROTOBUF | GZIP) as response:
        assert response.status == 200
        assert response.content_type == "application/x-protobuf"
        assert ExportTraceServiceResponse.FromString(await response.read()) == ExportTraceServiceResponse()
    [found] = await get_trace(urls.query, TRACE)
    assert (found.span_id, found.service, found.kind, found.duration) == (b"12345678".hex(), "unknown_service", "server", 0.005)
    assert found.start.year == 1970
    assert found.attributes == {"n": 7}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (BODY, JSON, 200),
        (gzip.compress(BODY), JSON | GZIP, 200),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}', JSON, 400),
        (b"{", PROTOBUF, 400),
        (BODY, JSON | GZIP, 400),
        (gzip.compress(BODY)[:-9], JSON | GZIP, 400),
        (BODY, JSON | {"Content-Encoding": "br"}, 400),
        (b" " * (4 * 1024 * 1024 + 1), JSON, 413),
        (gzip.compress(b" " * (4 * 1024 * 1024 + 1)), JSON | GZIP, 413),
        (BODY, {"Content-Type": "text/plain"}, 415),
        (BODY, JSON | {"Host": "evil.example"}, 403),
        (BODY, JSON | {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_intake_answers(urls, session, body, headers, status):
    async with session.post(urls.otlp, data=io.BytesIO(body), headers=headers) as response:
        assert response.status == status, await response.text()


async def test_an_app_in_a_pod_sends_its_spans_to_the_hosts_name_there_and_the_query_side_does_not_answer_to_it(urls, session):
    host = {"Host": "host.docker.internal:4318"}
    async with session.post(urls.otlp, data=BODY, headers=JSON | host) as response:
        assert response.status == 200
    async with session.post(urls.otlp, data=BODY, headers=JSON | {"Host": "evil.example"}) as response:
        assert response.status == 403
    async with session.get(f"{urls.query}/api/v3/services", headers=host) as response:
        assert response.status == 403


async def test_a_span_without_an_id_is_reported_and_the_rest_kept(urls, session):
    body = request(front=[span("", "bad", START, 1), span("b7ad6b7169203331", "good", START, 1)])
    async with session.post(urls.otlp, json=body) as response:
        assert (await response.json())["partialSuccess"]["rejectedSpans"] == "1"
    assert [found.name for found in await get_trace(urls.query, TRACE)] == ["good"]


@pytest.mark.parametrize(("attributes", "status"), [('{"service.name":"front"}', 200), ('{"service.name":"x"}', 404), ("bad", 400)])
async def test_search_by_attribute(urls, session, attributes, status):
    async with session.post(urls.otlp, data=BODY, headers=JSON):
        pass
    async with session.get(f"{urls.query}/api/v3/traces", params={"query.attributes": attributes}) as response:
        assert response.status == status


async def test_the_query_side_takes_no_writes_and_no_foreign_pages(urls, session):
    async with session.post(f"{urls.query}/api/v3/services") as response:
        assert response.status == 401
    async with session.post(f"{urls.query}/api/v3/services", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert response.status == 405
    async with session.get(f"{urls.query}/", headers={"Host": "evil.example"}) as response:
        assert response.status == 403


async def test_the_page_runs_its_own_script_only(urls, session):
    async with session.get(urls.query) as response:
        policy = response.headers["Content-Security-Policy"]
        text = await response.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in text


async def test_the_pages_summary(urls, session):
    async with session.post(urls.otlp, data=BODY, headers=JSON):
        pass
    async with session.get(f"{urls.query}/api/devmesh/traces?service=front") as response:
        answer = await response.json()
    expected = {"traceId": TRACE, "service": "front", "operation": "GET /", "spans": 1, "durationMicros": 100_000.0, "error": False}
    assert answer["services"] == ["front"]
    assert answer["traces"][0] | expected == answer["traces"][0]


async def test_nothing_there_is_said_with_what_to_do():
    with pytest.raises(DevmeshError, match="no trace store answers"):
        await get_trace("http://127.0.0.1:1", TRACE)


async def test_v1_finds_the_failed_and_those_that_said_ok(urls, session):
    for number, code in ((1, 2), (2, 1), (3, 0)):
        body = request(front=[span(f"{number:016x}", "GET /", START, 0.1, f"{number:032x}", status={"code": code})])
        async with session.post(urls.otlp, json=body):
            pass
    for word, expected in (("true", 1), ("false", 2)):
        async with session.get(f"{urls.query}/api/traces", params={"service": "front", "tags": json.dumps({"error": word})}) as response:
            [found] = (await response.json())["data"]
            assert int(found["traceID"], 16) == expected


async def test_what_is_no_trace_store_is_not_taken_for_one(urls):
    with pytest.raises(DevmeshError, match="no trace store: it speaks neither"):
        await get_trace(urls.otlp.removesuffix("/v1/traces"), TRACE)
