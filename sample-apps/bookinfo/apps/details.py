"""details v1: what is known of a book."""

from aiohttp import web
from common import application, run

BOOK = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}


async def details(request):
    try:
        number = int(request.match_info["id"])
    except ValueError:
        return web.json_response({"error": "please provide numeric product id"}, status=400)
    return web.json_response({"id": number, **BOOK})


async def health(_):
    return web.json_response({"status": "Details is healthy"})


if __name__ == "__main__":
    run(application(web.get("/details/{id}", details), web.get("/health", health)), "details")
