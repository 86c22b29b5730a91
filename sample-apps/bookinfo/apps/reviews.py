"""reviews: v1 without stars, v2 with black ones, v3 with red ones (ENABLE_RATINGS, STAR_COLOR), as Istio's images are configured."""

import os

from aiohttp import ClientError, web
from common import CLUSTER, POD, application, get, run

RATINGS = os.environ.get("ENABLE_RATINGS", "false") == "true"
COLOR = os.environ.get("STAR_COLOR", "black")
# v2 waits 10 s for ratings, v3 2.5 s: the difference that Istio's fault-injection task shows.
SECONDS = 10.0 if COLOR == "black" else 2.5
TEXTS = (
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    ("Reviewer2", "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare."),
)


async def reviews(request: web.Request) -> web.Response:
    number = request.match_info["id"]
    stars = await stars_of(request, number) if RATINGS else {}
    listed = [{"reviewer": name, "text": text, **rating(stars, name)} for name, text in TEXTS]
    return web.json_response({"id": number, "podname": POD, "clustername": CLUSTER, "reviews": listed})


def rating(stars: dict[str, int], name: str) -> dict[str, object]:
    if not RATINGS:
        return {}
    if name in stars:
        return {"rating": {"stars": stars[name], "color": COLOR}}
    return {"rating": {"error": "Ratings service is currently unavailable"}}


async def stars_of(request: web.Request, number: str) -> dict[str, int]:
    try:
        status, body = await get(request, f"http://ratings:9080/ratings/{number}", seconds=SECONDS)
    except (TimeoutError, ClientError):
        return {}
    return dict(body["ratings"]) if status == 200 and isinstance(body, dict) else {}


async def health(_: web.Request) -> web.Response:
    return web.json_response({"status": "Reviews is healthy"})


run(application(web.get("/reviews/{id}", reviews), web.get("/health", health)))
