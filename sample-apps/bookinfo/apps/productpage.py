"""productpage v1: the page, its login, and the API that Istio's Bookinfo has."""

import base64
import json
import time
from dataclasses import dataclass

from aiohttp import ClientError, web
from common import application, get, run
from page import render

SECONDS = 3.0
# Istio's page asks reviews twice. With ratings delayed by 7 s it therefore fails after 6 s: the bug that the fault-injection task finds.
REVIEWS_TRIES = 2
PRODUCTS = [
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: The Comedy of Errors is one of '
        "<b>William Shakespeare's</b> early plays. It is his shortest and one of his most farcical comedies, with a major part of the humour "
        "coming from slapstick and mistaken identity, in addition to puns and word play.",
    }
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said, `body` being `{"error": ...}` unless `status` is 200; `seconds` and `tries` are shown on the page."""

    status: int
    body: object
    seconds: float
    tries: int = 1


def user_of(request):
    try:
        return str(json.loads(base64.b64decode(request.cookies.get("session", ""), altchars=b"-_")).get("user", ""))
    except (ValueError, AttributeError):
        return ""


async def ask(request, service, number, tries=1):
    """GET /<service>/<number> of a service, at most `tries` times."""
    user, began, status = user_of(request), time.monotonic(), 500
    for tried in range(1, tries + 1):
        try:
            url = f"http://{service}:9080/{service}/{number}"
            status, body = await get(request, url, seconds=SECONDS, headers={"end-user": user} if user else None)
        except (TimeoutError, ClientError):
            status, body = 500, None
        if status == 200:
            return Answer(200, body, time.monotonic() - began, tried)
    return Answer(status, {"error": f"Sorry, product {service} are currently unavailable for this book."}, time.monotonic() - began, tries)


async def page(request):
    # One after the other, as Istio's page: its time is the sum of both.
    details = await ask(request, "details", 0)
    reviews = await ask(request, "reviews", 0, REVIEWS_TRIES)
    # 200 even when a part is missing, as Istio's: the rest can still be read.
    return web.Response(text=render(PRODUCTS[0], user_of(request), details, reviews), content_type="text/html")


async def login(request):
    form = await request.post()
    back = web.HTTPFound(request.headers.get("referer") or "productpage")
    session = base64.b64encode(json.dumps({"user": str(form.get("username", ""))}).encode(), altchars=b"-_").decode()
    back.set_cookie("session", session, httponly=True, samesite="Lax")
    raise back


async def logout(request):
    back = web.HTTPFound(request.headers.get("referer") or "productpage")
    back.del_cookie("session")
    raise back


async def index(_):
    raise web.HTTPFound("productpage")


async def products(_):
    return web.json_response(PRODUCTS)


def part(service, tries=1):
    async def answer(request):
        found = await ask(request, service, request.match_info["id"], tries)
        return web.json_response(found.body, status=found.status)

    return answer


async def health(_):
    return web.Response(text="Product page is healthy")


if __name__ == "__main__":
    routes = (
        web.get("/", index),
        web.get("/index.html", index),
        web.get("/productpage", page),
        web.post("/login", login),
        web.get("/logout", logout),
        web.get("/health", health),
        web.get("/api/v1/products", products),
        web.get(r"/api/v1/products/{id:\d+}", part("details")),
        web.get(r"/api/v1/products/{id:\d+}/reviews", part("reviews", REVIEWS_TRIES)),
        web.get(r"/api/v1/products/{id:\d+}/ratings", part("ratings")),
    )
    run(application(*routes), "productpage")
