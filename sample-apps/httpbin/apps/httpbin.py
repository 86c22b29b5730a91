"""httpbin: says what a request looked like when it arrived. Paths and JSON are those of go-httpbin, which Istio's tasks run; every request is logged."""

import asyncio
import base64
import json
import random
import time
from datetime import UTC, datetime

from aiohttp import web
from common import POD, application, run

MAX_DELAY_SECONDS = 10.0
MAX_BYTES = 100 * 1024
NAMED_UNITS = {"ms": 0.001, "s": 1.0}
# go-httpbin sends these with every answer.
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"}


def answer(value, status=200):
    return web.Response(text=json.dumps(value, indent=2) + "\n", status=status, content_type="application/json")


def headers_of(request):
    """Every header as a list of values, names in Go's canonical form: `.headers["X-Forwarded-Client-Cert"][0]`."""
    found = {}
    for name, value in request.headers.items():
        found.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    return dict(sorted(found.items()))


def seen(request):
    args = {name: request.query.getall(name) for name in request.query}
    origin = request.headers.get("X-Forwarded-For", request.remote or "").split(",")[0].strip()
    return {"args": args, "headers": headers_of(request), "method": request.method, "origin": origin, "url": str(request.url)}


async def get(request):
    return answer(seen(request))


async def body(request):
    raw = await request.read()
    is_form = request.content_type == "application/x-www-form-urlencoded"
    form = await request.post() if is_form else {}
    try:
        parsed = json.loads(raw) if request.content_type == "application/json" else None
    except ValueError:
        parsed = None
    try:
        data = "" if is_form else raw.decode()
    except UnicodeDecodeError:
        data = f"data:{request.content_type};base64,{base64.b64encode(raw).decode()}"
    return answer({**seen(request), "data": data, "files": {}, "form": {name: form.getall(name) for name in form}, "json": parsed})


async def anything(request):
    return await body(request)


async def headers(request):
    return answer({"headers": headers_of(request)})


async def status(request):
    """`/status/503`, or weighted, `/status/200:0.9,503:0.1`."""
    choices = [one.partition(":") for one in request.match_info["codes"].split(",")]
    try:
        codes, weights = [int(code) for code, _, _ in choices], [float(weight or 1) for _, _, weight in choices]
        (code,) = random.choices(codes, weights)
    except ValueError:
        code = 0
    if not 200 <= code <= 599:
        raise web.HTTPBadRequest(text="invalid status code\n")
    return web.Response(status=code)


async def delay(request):
    """`/delay/2`, `/delay/0.5`, `/delay/300ms`: at most 10 s."""
    text = request.match_info["seconds"]
    unit = next((unit for unit in NAMED_UNITS if text.endswith(unit)), "")
    try:
        seconds = float(text.removesuffix(unit)) * NAMED_UNITS.get(unit, 1.0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_DELAY_SECONDS:
        raise web.HTTPBadRequest(text=f"invalid duration: {text}\n")
    await asyncio.sleep(seconds)
    return await body(request)


async def response_headers(request):
    found = web.Response(text=json.dumps(dict(request.query), indent=2) + "\n", content_type="application/json")
    for name, value in request.query.items():
        found.headers.add(name, value)
    return found


async def sized(request):
    return web.Response(body=random.randbytes(min(int(request.match_info["n"]), MAX_BYTES)))


async def stream(request):
    """`n` JSON lines, each a chunk of its own."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for number in range(min(int(request.match_info["n"]), 100)):
        await response.write(json.dumps({"id": number, **seen(request)}).encode() + b"\n")
    await response.write_eof()
    return response


async def address(request):
    return answer({"origin": seen(request)["origin"]})


async def user_agent(request):
    return answer({"user-agent": request.headers.get("User-Agent", "")})


async def hostname(_):
    return answer({"hostname": POD})


async def index(_):
    return web.Response(text=f"httpbin at {POD}: {' '.join(PATHS)}\n")


@web.middleware
async def logged(request, handler):
    """One line a request: with mirroring, v2's log shows the copies."""
    began, code = time.monotonic(), 500
    try:
        response = await handler(request)
        code = response.status
    except web.HTTPException as error:
        code = error.status
        raise
    else:
        return response
    finally:
        took, now = (time.monotonic() - began) * 1000, datetime.now(UTC).isoformat(timespec="milliseconds")
        agent = request.headers.get("User-Agent", "")
        print(
            f'time={now} level=INFO msg="{request.method} {request.path} {code} {took:.1f}ms" host={request.host!r} user_agent={agent!r}',
            flush=True,
        )


async def cors(_, response):
    response.headers.extend({name: value for name, value in CORS.items() if name not in response.headers})


ROUTES = (
    web.get("/", index),
    web.get("/get", get),
    web.post("/post", body),
    web.put("/put", body),
    web.patch("/patch", body),
    web.delete("/delete", body),
    web.route("*", "/anything", anything),
    web.route("*", "/anything/{rest:.*}", anything),
    web.get("/headers", headers),
    web.route("*", "/status/{codes}", status),
    web.route("*", "/delay/{seconds}", delay),
    web.get("/response-headers", response_headers),
    web.get(r"/bytes/{n:\d{1,6}}", sized),
    web.get(r"/stream/{n:\d{1,6}}", stream),
    web.get("/ip", address),
    web.get("/user-agent", user_agent),
    web.get("/hostname", hostname),
)
PATHS = sorted({route.path for route in ROUTES if route.path != "/"})


def build():
    app = application(*ROUTES, middlewares=[logged])
    app.on_response_prepare.append(cors)
    return app


if __name__ == "__main__":
    run(build(), "httpbin", 8000)
