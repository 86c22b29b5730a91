"""ratings v1: stars by reviewer; POST changes them."""

from aiohttp import web
from common import application, run

STARS = {"Reviewer1": 5, "Reviewer2": 4}
changed: dict[int, dict[str, int]] = {}


async def ratings(request: web.Request) -> web.Response:
    try:
        number = int(request.match_info["id"])
    except ValueError:
        return web.json_response({"error": "please provide numeric product ID"}, status=400)
    if request.method == "POST":
        try:
            changed[number] = {str(name): int(stars) for name, stars in (await request.json()).items()}
        except (ValueError, TypeError, AttributeError):
            return web.json_response({"error": "please provide valid ratings JSON"}, status=400)
    return web.json_response({"id": number, "ratings": changed.get(number, STARS)})


async def health(_: web.Request) -> web.Response:
    return web.json_response({"status": "Ratings is healthy"})


run(application(web.get("/ratings/{id}", ratings), web.post("/ratings/{id}", ratings), web.get("/health", health)))
