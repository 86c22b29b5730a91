"""Bookinfo's six workloads as processes: what Istio's Bookinfo says and shows."""

import asyncio
import base64

import aiohttp
import pytest
import pytest_asyncio

from tests.sample_apps.stand_in import Mesh, json, start, text

pytestmark = pytest.mark.asyncio(loop_scope="module")
VERSIONS = {"v1": {}, "v2": {"ENABLE_RATINGS": "true", "STAR_COLOR": "black"}, "v3": {"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}}
TRACE = {
    "x-request-id": "1-2",
    "x-b3-traceid": "a" * 32,
    "x-b3-spanid": "b" * 16,
    "x-b3-sampled": "1",
    "sw8": "x",
    "x-ot-span-context": "y",
}
NO_REVIEWS = "Sorry, product reviews are currently unavailable for this book."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    async with Mesh().serving() as mesh:
        programs = [("details", "details", {}), ("ratings", "ratings", {}), ("productpage", "productpage", {})]
        programs += [(f"reviews-{version}", "reviews", environment) for version, environment in VERSIONS.items()]
        apps = await asyncio.gather(*(start("bookinfo", program, proxy=mesh.url, name=name, **env) for name, program, env in programs))
        mesh.routes = {name: app for (name, _, _), app in zip(programs, apps, strict=True)}
        yield mesh


@pytest.fixture
def mesh(running):
    """All traffic to reviews v2, no faults, nothing seen."""
    running.routes["reviews"] = running.routes["reviews-v2"]
    running.faults.clear()
    running.seen.clear()
    return running


def page_of(mesh):
    return mesh.routes["productpage"].url


def session(user):
    return {"session": base64.urlsafe_b64encode(f'{{"user": "{user}"}}'.encode()).decode()}


@pytest.mark.parametrize(("version", "stars"), [("v1", None), ("v2", "black"), ("v3", "red")])
async def test_the_page_shows_the_versions_stars(mesh, version, stars):
    mesh.routes["reviews"] = mesh.routes[f"reviews-{version}"]
    status, page = await text(f"{page_of(mesh)}/productpage")
    assert status == 200
    assert "The Comedy of Errors" in page
    assert "PublisherA" in page
    assert "An extremely entertaining play by Shakespeare" in page
    assert f"served by <code>reviews-{version}</code>" in page
    assert [colour for colour in ("black", "red") if f'class="stars {colour}"' in page] == ([stars] if stars else [])


async def test_reviews_say_which_pod_answered(mesh):
    _, answer = await json(f"{mesh.routes['reviews-v3'].url}/reviews/0")
    assert answer["id"] == "0"
    assert answer["podname"] == "reviews-v3"
    assert answer["clustername"] == "null"
    assert answer["reviews"][1]["rating"] == {"stars": 4, "color": "red"}


async def test_a_user_who_signed_in_is_named_to_every_service(mesh):
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
        browser.post(
            f"{page_of(mesh)}/login", data={"username": "jason", "passwd": "any"}, headers={"Referer": f"{page_of(mesh)}/productpage"}
        ) as response,
    ):
        assert "jason" in await response.text()
        assert [mesh.headers(service)[-1].get("end-user") for service in ("details", "reviews", "ratings")] == ["jason"] * 3
        mesh.seen.clear()
        async with browser.get(f"{page_of(mesh)}/logout", headers={"Referer": f"{page_of(mesh)}/productpage"}) as answer:
            assert "jason</span>" not in await answer.text()
        assert "end-user" not in mesh.headers("reviews")[-1]


async def test_trace_and_session_headers_go_all_the_way_down(mesh):
    await text(f"{page_of(mesh)}/productpage", headers=TRACE | {"User-Agent": "me", "X-Other": "no"}, cookies=session("jason"))
    for service in ("details", "reviews", "ratings"):
        (headers,) = mesh.headers(service)
        assert headers | TRACE == headers
        assert headers["user-agent"] == "me"
        assert "session=" in headers["cookie"]
        assert "x-other" not in headers


async def test_failing_ratings_cost_the_stars_only(mesh):
    mesh.faults["ratings"] = 500
    status, page = await text(f"{page_of(mesh)}/productpage")
    assert status == 200
    assert page.count("Ratings service is currently unavailable") == 2
    assert "An extremely entertaining play" in page


async def test_failing_reviews_are_asked_twice_and_then_reported(mesh):
    mesh.faults["reviews"] = 503
    status, page = await text(f"{page_of(mesh)}/productpage")
    assert (status, len(mesh.headers("reviews"))) == (200, 2)
    assert "Error fetching product reviews!" in page
    assert NO_REVIEWS in page
    assert "PublisherA" in page
    assert await json(f"{page_of(mesh)}/api/v1/products/0/reviews") == (503, {"error": NO_REVIEWS})


async def test_failing_details_are_asked_once_and_then_reported(mesh):
    mesh.faults["details"] = 404
    _, page = await text(f"{page_of(mesh)}/productpage")
    assert len(mesh.headers("details")) == 1
    assert "Sorry, product details are currently unavailable for this book." in page
    assert "An extremely entertaining play" in page


async def test_the_api(mesh):
    base = f"{page_of(mesh)}/api/v1/products"
    _, (product,) = await json(base)
    assert (product["id"], product["title"]) == (0, "The Comedy of Errors")
    _, details = await json(f"{base}/0")
    assert details["ISBN-13"] == "123-1234567890"
    _, reviews = await json(f"{base}/0/reviews")
    assert [one["reviewer"] for one in reviews["reviews"]] == ["Reviewer1", "Reviewer2"]
    assert await json(f"{base}/0/ratings") == (200, {"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})
    assert (await text(f"{base}/x"))[0] == 404


async def test_ratings_can_be_changed(mesh):
    url = mesh.routes["ratings"].url
    async with aiohttp.request("POST", f"{url}/ratings/7", json={"Reviewer1": 1}) as response:
        assert await response.json() == {"id": 7, "ratings": {"Reviewer1": 1}}
    assert (await json(f"{url}/ratings/7"))[1]["ratings"] == {"Reviewer1": 1}
    async with aiohttp.request("POST", f"{url}/ratings/7", data="{") as response:
        assert (response.status, await response.json()) == (400, {"error": "please provide valid ratings JSON"})


@pytest.mark.parametrize(("service", "word"), [("details", "product id"), ("ratings", "product ID")])
async def test_a_product_is_a_number(mesh, service, word):
    assert await json(f"{mesh.routes[service].url}/{service}/x") == (400, {"error": f"please provide numeric {word}"})


async def test_everyone_is_healthy(mesh):
    assert await text(f"{page_of(mesh)}/health") == (200, "Product page is healthy")
    for service in ("details", "reviews", "ratings"):
        assert await json(f"{mesh.routes[service].url}/health") == (200, {"status": f"{service.capitalize()} is healthy"})


async def test_a_user_name_is_text_and_never_markup(mesh):
    _, page = await text(f"{page_of(mesh)}/productpage", cookies=session("<script>{{REVIEWS}}"))
    assert "&lt;script&gt;{{REVIEWS}}" in page
    assert "<script" not in page


async def test_a_broken_session_is_nobodys(mesh):
    _, page = await text(f"{page_of(mesh)}/productpage", cookies={"session": "%%%"})
    assert "Sign in" in page


async def test_ratings_that_hang_are_given_up_by_v3_after_two_and_a_half_seconds(mesh):
    async def never(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        impatient = await start("bookinfo", "reviews", proxy=proxy, **VERSIONS["v3"])
        began = asyncio.get_running_loop().time()
        _, answer = await json(f"{impatient.url}/reviews/0")
        took = asyncio.get_running_loop().time() - began
        await impatient.stop()
    assert answer["reviews"][0]["rating"] == {"error": "Ratings service is currently unavailable"}
    assert 2.5 <= took < 5
