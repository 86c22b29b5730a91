"""How an app starts and stops, its own spans, and the files of both samples."""

import asyncio
import importlib.util
import socket

import aiohttp
import pytest

from devmesh.collector.client import get_trace
from devmesh.config.analysis import analyze, merge
from devmesh.config.loader import load_paths
from devmesh.config.topology import check_local, load_topology
from devmesh.errors import DevmeshError
from tests.collector.sample import collector
from tests.sample_apps.stand_in import ROOT, Mesh, start

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLES = ("bookinfo", "httpbin")


def module(name):
    spec = importlib.util.spec_from_file_location(f"sample_{name}", ROOT / "bookinfo" / "apps" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


async def test_an_app_says_where_it_listens_and_ends_well():
    app = await start("bookinfo", "ratings", name="ratings-v1")
    assert app.lines == [f"ratings-v1 listens on {app.url.removeprefix('http://')}"]
    assert await app.stop() == 0
    assert len(app.lines) == 1, app.lines


async def test_a_port_in_use_is_said_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app = await start("bookinfo", "ratings", PORT=str(taken.getsockname()[1]))
        async with asyncio.timeout(60):
            await app.reading
            assert await app.process.wait() == 1
    assert len(app.lines) == 1
    assert "cannot listen" in app.lines[0]


async def test_an_app_whose_collector_is_gone_ends_without_waiting_for_it():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    app = await start("bookinfo", "ratings", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
    for _ in range(3):
        async with aiohttp.request("GET", f"{app.url}/ratings/0") as response:
            assert response.status == 200
    assert await app.stop() == 0


async def spans_of(url, trace, wanted):
    """The spans of a trace, once there are that many."""
    async with asyncio.timeout(60):
        while True:
            try:
                spans = await get_trace(url, trace)
            except DevmeshError:
                spans = []
            if len(spans) >= wanted:
                return spans
            await asyncio.sleep(0.05)  # between looks at another process


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": f"00-{TRACE}-{PARENT}-01"},
        {"b3": f"{TRACE}-{PARENT}-1"},
        {"x-b3-traceid": TRACE, "x-b3-spanid": PARENT, "x-b3-sampled": "1"},
    ],
    ids=["w3c", "b3", "x-b3"],
)
async def test_server_and_client_spans_join_the_trace_that_comes_in(headers):
    async with collector() as urls, Mesh().serving() as mesh:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": urls.otlp.removesuffix("/v1/traces"),
            "ENABLE_RATINGS": "true",
            "OTEL_SERVICE_NAME": "reviews",
        }
        reviews = mesh.routes["reviews"] = await start("bookinfo", "reviews", proxy=mesh.url, **environment)
        mesh.faults["ratings"] = 503
        async with asyncio.timeout(60):
            while not mesh.seen or "traceparent" not in mesh.seen[-1][2]:  # the SDK loads beside the first requests
                async with aiohttp.request("GET", f"{reviews.url}/reviews/0") as response:
                    assert response.status == 200
        mesh.seen.clear()
        async with aiohttp.request("GET", f"{reviews.url}/reviews/0", headers=headers) as response:
            assert response.status == 200
        by_kind = {span.kind: span for span in await spans_of(urls.query, TRACE, 2)}
    server, client = by_kind["server"], by_kind["client"]
    assert (server.parent_id, server.name, server.service, server.error) == (PARENT, "GET /reviews/{id}", "reviews", False)
    assert server.attributes["http.response.status_code"] == 200
    assert (client.parent_id, client.name, client.error) == (server.span_id, "GET", True)
    expected = {"server.address": "ratings", "http.response.status_code": 503, "error.type": "503"}
    assert client.attributes | expected == client.attributes
    sent = mesh.seen[-1][2]
    assert sent["traceparent"] == f"00-{TRACE}-{client.span_id}-01"
    assert sent.get("b3", f"{TRACE}-{client.span_id}-1") == f"{TRACE}-{client.span_id}-1"
    assert sent.get("x-b3-spanid", client.span_id) == client.span_id


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ""),
        ({"traceparent": "as it came", "b3": "0"}, "as it came"),
        ({"b3": "0"}, ""),
        ({"b3": f"{TRACE}-{PARENT}"}, f"00-{TRACE}-{PARENT}-01"),  # left to us
        ({"b3": f"{TRACE}-{PARENT}-d"}, f"00-{TRACE}-{PARENT}-01"),
        ({"b3": f"{TRACE}-{PARENT}-0-{PARENT}"}, f"00-{TRACE}-{PARENT}-00"),
        ({"x-b3-traceid": TRACE[16:], "x-b3-spanid": PARENT}, f"00-{'0' * 16}{TRACE[16:]}-{PARENT}-01"),
        ({"x-b3-sampled": "0"}, ""),
    ],
)
def test_b3_in_w3cs_words(headers, expected):
    assert module("tracing").traceparent_of(headers) == expected


@pytest.mark.parametrize("name", ["common.py", "tracing.py"])
def test_each_sample_stands_alone_with_the_same_foundations(name):
    assert (ROOT / "bookinfo" / "apps" / name).read_text() == (ROOT / "httpbin" / "apps" / name).read_text()


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_runs_as_plain_processes_and_its_mesh_files_are_accepted(sample):
    topology = load_topology(ROOT / sample / "compose.yaml")
    check_local(topology)
    loaded = load_paths([ROOT / sample / "mesh"])
    assert loaded.resources
    assert [one for one in merge([loaded.diagnostics, analyze(loaded.resources, topology)]) if one.severity == "error"] == []


@pytest.mark.parametrize("task", sorted(ROOT.glob("*/tasks/*.yaml")), ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_task_is_accepted_and_all_that_is_said_is_what_istioctl_says(task):
    """Istio's own rules for Bookinfo name subsets of versions that come with other tasks: IST0173, a warning."""
    topology = load_topology(task.parent.parent / "compose.yaml")
    before = [
        path for path in (task.parent / "destination-rule-all.yaml", task.parent / "all-to-v1.yaml") if path.exists() and path != task
    ]
    subsets = [one for one in load_paths(before).resources if one.key.kind == "DestinationRule"]
    loaded = load_paths([task])
    mine = {one.key for one in loaded.resources}
    known = [one for one in subsets if one.key not in mine]
    found = merge([loaded.diagnostics, analyze([*known, *loaded.resources], topology)])
    assert [one for one in found if (one.severity, one.code) != ("warning", "IST0173")] == []
    subsets = {one.message.partition("Subset ")[2].partition(" ")[0] for one in found}
    assert subsets <= {"v2", "v2-mysql", "v2-mysql-vm"}
