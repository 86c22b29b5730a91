"""ratings v1: stars by reviewer; POST changes them for as long as it runs."""

from aiohttp import web
from common import application, run

STARS = {"Reviewer1": 5, "Reviewer2": 4}
changed = {}


async def ratings(request):
    try:
        number = int(request.match_info["id"])
    except ValueError:
        return web.json_response({"error": "please provide numeric product ID"}, status=400)
    if request.method == "POST":
        try:
            changed[number] = await request.json()
        except ValueError:
            return web.json_response({"error": "please provide valid ratings JSON"}, status=400)
    return web.json_response({"id": number, "ratings": changed.get(number, STARS)})


async def health(_):
    return web.json_response({"status": "Ratings is healthy"})


if __name__ == "__main__":
    run(application(web.get("/ratings/{id}", ratings), web.post("/ratings/{id}", ratings), web.get("/health", health)), "ratings")
