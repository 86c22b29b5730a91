"""httpbin and its load client as processes."""

import asyncio
from collections import Counter

import aiohttp
import pytest
import pytest_asyncio

from tests.sample_apps.stand_in import Mesh, json, start, text

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    async with Mesh().serving() as mesh:
        httpbin, fortio = await asyncio.gather(start("httpbin", "httpbin", name="httpbin-v1"), start("httpbin", "fortio", proxy=mesh.url))
        mesh.routes = {"httpbin": httpbin, "fortio": fortio}
        yield mesh


@pytest.fixture
def mesh(running):
    running.faults.clear()
    running.seen.clear()
    return running


@pytest.fixture
def url(mesh):
    return mesh.routes["httpbin"].url


async def test_headers_are_lists_under_canonical_names(url):
    status, answer = await json(f"{url}/headers", headers={"x-forwarded-client-cert": "By=a", "end-user": "jason"})
    assert status == 200
    assert answer["headers"]["X-Forwarded-Client-Cert"] == ["By=a"]
    assert answer["headers"]["End-User"] == ["jason"]


async def test_get_says_what_came(url):
    _, answer = await json(f"{url}/get?a=1&a=2", headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"})
    assert (answer["args"], answer["method"], answer["origin"]) == ({"a": ["1", "2"]}, "GET", "10.0.0.1")
    assert answer["url"] == f"{url}/get?a=1&a=2"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"json": {"a": 1}}, {"json": {"a": 1}, "data": '{"a": 1}'}),
        ({"data": {"a": "1"}}, {"form": {"a": ["1"]}, "data": ""}),
        ({"data": b"plain", "headers": {"Content-Type": "text/plain"}}, {"data": "plain", "json": None}),
        ({"data": b"\xff", "headers": {"Content-Type": "a/b"}}, {"data": "data:a/b;base64,/w=="}),
    ],
)
async def test_bodies_come_back(url, sent, expected):
    async with aiohttp.request("POST", f"{url}/post", **sent) as response:
        answer = await response.json()
    assert answer | expected == answer


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/put"), ("PATCH", "/patch"), ("DELETE", "/delete"), ("GET", "/anything/deep/down"), ("POST", "/anything")]
)
async def test_methods(url, method, path):
    async with aiohttp.request(method, url + path) as response:
        assert (response.status, (await response.json())["method"]) == (200, method)
        assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("path", "status"), [("/status/418", 418), ("/status/503:1,200:0", 503), ("/status/99", 400), ("/status/x", 400), ("/nothing", 404)]
)
async def test_statuses(url, path, status):
    assert (await text(url + path))[0] == status


async def test_weighted_statuses_are_all_seen(url):
    seen = Counter([(await text(f"{url}/status/200:0.5,503:0.5"))[0] for _ in range(60)])
    assert set(seen) == {200, 503}


@pytest.mark.parametrize(
    ("path", "status"), [("/delay/0.01", 200), ("/delay/10ms", 200), ("/delay/11", 400), ("/delay/nan", 400), ("/delay/-1", 400)]
)
async def test_delays(url, path, status):
    assert (await text(url + path))[0] == status


async def test_streams_and_sized_bodies(url):
    _, lines = await text(f"{url}/stream/3")
    assert lines.count("\n") == 3
    async with aiohttp.request("GET", f"{url}/bytes/1000") as response:
        assert len(await response.read()) == 1000


async def test_every_request_is_logged_so_that_mirrored_ones_are_seen(mesh, url):
    app = mesh.routes["httpbin"]
    before = len(app.lines)
    await text(f"{url}/headers", headers={"User-Agent": "curl/1"})
    async with asyncio.timeout(60):
        while len(app.lines) == before:
            await asyncio.sleep(0.01)
    assert 'level=INFO msg="GET /headers 200 ' in app.lines[-1]
    assert "user_agent='curl/1'" in app.lines[-1]


async def test_the_client_counts_answers_by_status(mesh):
    run = f"{mesh.routes['fortio'].url}/fortio/rest/run"
    _, answer = await json(run, params={"url": "http://httpbin:8000/get", "c": "3", "n": "30"})
    assert (answer["RetCodes"], answer["NumThreads"], answer["Exactly"]) == ({"200": 30}, 3, 30)
    assert len(mesh.seen) == 30
    mesh.faults["httpbin"] = 503
    _, answer = await json(run, params={"url": "http://httpbin:8000/get", "c": "2", "n": "4"})
    assert answer["RetCodes"] == {"503": 4}


async def test_the_client_passes_one_request_on(mesh):
    status, answer = await json(f"{mesh.routes['fortio'].url}/fortio/fetch/httpbin:8000/get?x=1", headers={"end-user": "jason"})
    assert (status, answer["args"]) == (200, {"x": ["1"]})
    assert mesh.headers("httpbin")[-1]["end-user"] == "jason"


@pytest.mark.parametrize(
    "query",
    [
        "url=http://127.0.0.1:1/",
        "url=http://localhost/",
        "url=http://[::1]/",
        "url=file:///etc/passwd",
        "",
        "url=http://httpbin/&c=0",
        "url=http://httpbin/&n=x",
    ],
)
async def test_the_client_refuses_what_is_not_a_service_of_the_mesh(mesh, query):
    assert (await text(f"{mesh.routes['fortio'].url}/fortio/rest/run?{query}"))[0] == 400
    assert mesh.seen == []
