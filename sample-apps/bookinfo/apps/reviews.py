"""reviews: v1 without stars, v2 with black ones, v3 with red ones (ENABLE_RATINGS, STAR_COLOR), as Istio's images are configured."""

import os

from aiohttp import ClientError, web
from common import CLUSTER, POD, application, get, run

WITH_RATINGS = os.environ.get("ENABLE_RATINGS", "false") == "true"
COLOR = os.environ.get("STAR_COLOR", "black")
# v2 waits 10 s for ratings, v3 2.5 s: Istio's fault-injection task tells the two apart by it.
RATINGS_SECONDS = 10.0 if COLOR == "black" else 2.5
TEXTS = (
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    ("Reviewer2", "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare."),
)


async def reviews(request):
    number = request.match_info["id"]
    stars = await stars_of(request, number) if WITH_RATINGS else {}
    listed = [{"reviewer": name, "text": text, **rating(stars, name)} for name, text in TEXTS]
    return web.json_response({"id": number, "podname": POD, "clustername": CLUSTER, "reviews": listed})


def rating(stars, name):
    if not WITH_RATINGS:
        return {}
    if name in stars:
        return {"rating": {"stars": stars[name], "color": COLOR}}
    return {"rating": {"error": "Ratings service is currently unavailable"}}


async def stars_of(request, number):
    """Stars by reviewer; empty when ratings fails, which the page shows as such."""
    try:
        status, body = await get(request, f"http://ratings:9080/ratings/{number}", seconds=RATINGS_SECONDS)
    except (TimeoutError, ClientError) as error:
        print(f"Error: unable to contact http://ratings:9080/ratings got exception {error!r}", flush=True)
        return {}
    if status != 200:
        print(f"Error: unable to contact http://ratings:9080/ratings got status of {status}", flush=True)
        return {}
    found = body.get("ratings") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


async def health(_):
    return web.json_response({"status": "Reviews is healthy"})


if __name__ == "__main__":
    run(application(web.get(r"/reviews/{id:\d+}", reviews), web.get("/health", health)), "reviews")
