"""productpage v1: the page, its login, and the API that Istio's Bookinfo has."""

import asyncio
import base64
import html
import json
from pathlib import Path

from aiohttp import ClientError, web
from common import application, get, run

DETAILS_SECONDS = REVIEWS_SECONDS = 3.0
REVIEWS_TRIES = 2  # productpage asks reviews twice: with ratings delayed by 7 s the page fails after 6 s, as Istio's task says
PRODUCTS = [
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: The Comedy of Errors is one of '
        "<b>William Shakespeare's</b> early plays. It is his shortest and one of his most farcical comedies, with a major part of the humour "
        "coming from slapstick and mistaken identity, in addition to puns and word play.",
    }
]
PAGE = (Path(__file__).parent / "page.html").read_text()


def user_of(request: web.Request) -> str:
    try:
        return str(json.loads(base64.b64decode(request.cookies.get("session", ""), altchars=b"-_")).get("user", ""))
    except (ValueError, AttributeError):
        return ""


def caller(request: web.Request) -> dict[str, str]:
    user = user_of(request)
    return {"end-user": user} if user else {}


async def details_of(request: web.Request, number: int) -> tuple[int, object]:
    try:
        status, body = await get(request, f"http://details:9080/details/{number}", seconds=DETAILS_SECONDS, headers=caller(request))
    except (TimeoutError, ClientError):
        status, body = 500, None
    return (200, body) if status == 200 else (status, {"error": "Sorry, product details are currently unavailable for this book."})


async def reviews_of(request: web.Request, number: int) -> tuple[int, object]:
    status = 500
    for _ in range(REVIEWS_TRIES):
        try:
            status, body = await get(request, f"http://reviews:9080/reviews/{number}", seconds=REVIEWS_SECONDS, headers=caller(request))
        except (TimeoutError, ClientError):
            status = 500
            continue
        if status == 200:
            return 200, body
    return status, {"error": "Sorry, product reviews are currently unavailable for this book."}


async def page(request: web.Request) -> web.Response:
    product = PRODUCTS[0]
    (details_status, details), (reviews_status, reviews) = await asyncio.gather(details_of(request, 0), reviews_of(request, 0))
    user = user_of(request)
    filled = {
        "TITLE": html.escape(str(product["title"])),
        "SUMMARY": str(product["descriptionHtml"]),
        "DETAILS": render_details(details_status, details),
        "REVIEWS": render_reviews(reviews_status, reviews),
        "LOGIN": f'<span class="user">{html.escape(user)}</span> <a href="logout">Sign out</a>' if user else SIGN_IN,
    }
    text = PAGE
    for key, value in filled.items():
        text = text.replace("{{" + key + "}}", value)
    # Istio's page answers 200 even when a part is missing, so that the rest is seen.
    return web.Response(text=text, content_type="text/html")


SIGN_IN = (
    '<form method="post" action="login"><input name="username" placeholder="User name" required autocomplete="off">'
    '<input name="passwd" type="password" placeholder="Any password"><button>Sign in</button></form>'
)


def render_details(status: int, details: object) -> str:
    if status != 200 or not isinstance(details, dict):
        return f'<div class="error"><h4>Error fetching product details!</h4><p>{html.escape(error_of(details))}</p></div>'
    rows = (
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    )
    return "<dl>" + "".join(f"<dt>{label}</dt><dd>{html.escape(str(details.get(key, '')))}</dd>" for label, key in rows) + "</dl>"


def render_reviews(status: int, reviews: object) -> str:
    if status != 200 or not isinstance(reviews, dict):
        return f'<div class="error"><h4>Error fetching product reviews!</h4><p>{html.escape(error_of(reviews))}</p></div>'
    parts = [render_review(one) for one in reviews["reviews"]]
    return "".join(parts) + f'<p class="pod">Reviews served by <code>{html.escape(str(reviews.get("podname", "")))}</code></p>'


def render_review(review: dict) -> str:
    stars = ""
    rating = review.get("rating")
    if rating and "stars" in rating:
        color = "red" if rating["color"] == "red" else "black"
        stars = (
            f'<span class="stars {color}" title="{rating["stars"]} of 5">'
            + "&#9733;" * rating["stars"]
            + "<i>"
            + "&#9733;" * (5 - rating["stars"])
            + "</i></span>"
        )
    elif rating:
        stars = f'<span class="norating">{html.escape(str(rating.get("error", "")))}</span>'
    return f"<blockquote><p>{html.escape(review['text'])}</p><footer>{html.escape(review['reviewer'])} {stars}</footer></blockquote>"


def error_of(body: object) -> str:
    return str(body.get("error", "")) if isinstance(body, dict) else ""


async def login(request: web.Request) -> web.Response:
    form = await request.post()
    session = base64.b64encode(json.dumps({"user": str(form.get("username", ""))}).encode(), altchars=b"-_").decode()
    response = web.HTTPFound(request.headers.get("referer") or "productpage")
    response.set_cookie("session", session, httponly=True, samesite="Lax")
    return response


async def logout(request: web.Request) -> web.Response:
    response = web.HTTPFound(request.headers.get("referer") or "productpage")
    response.del_cookie("session")
    return response


async def index(_: web.Request) -> web.Response:
    raise web.HTTPFound("productpage")


async def products(_: web.Request) -> web.Response:
    return web.json_response(PRODUCTS)


async def product(request: web.Request) -> web.Response:
    status, body = await details_of(request, int(request.match_info["id"]))
    return web.json_response(body, status=status)


async def product_reviews(request: web.Request) -> web.Response:
    status, body = await reviews_of(request, int(request.match_info["id"]))
    return web.json_response(body, status=status)


async def product_ratings(request: web.Request) -> web.Response:
    try:
        status, body = await get(
            request, f"http://ratings:9080/ratings/{int(request.match_info['id'])}", seconds=3, headers=caller(request)
        )
    except (TimeoutError, ClientError):
        status, body = 500, None
    return web.json_response(
        body if status == 200 else {"error": "Sorry, product ratings are currently unavailable for this book."}, status=status
    )


async def health(_: web.Request) -> web.Response:
    return web.Response(text="Product page is healthy")


run(
    application(
        web.get("/", index),
        web.get("/productpage", page),
        web.post("/login", login),
        web.get("/logout", logout),
        web.get("/health", health),
        web.get("/api/v1/products", products),
        web.get("/api/v1/products/{id:\\d+}", product),
        web.get("/api/v1/products/{id:\\d+}/reviews", product_reviews),
        web.get("/api/v1/products/{id:\\d+}/ratings", product_ratings),
    )
)
