"""A load client with the part of Fortio's REST API that Istio's tasks need.

`GET /fortio/rest/run?url=http://httpbin:8000/get&c=3&n=30` sends `n` requests over `c` connections as fast as they go and says how they were answered;
`GET /fortio/fetch/httpbin:8000/headers` passes one request on and its answer back.
"""

import asyncio
import time
from collections import Counter
from statistics import fmean

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from common import FORWARDED, SESSION, SPAN, application, run
from tracing import answered, client_span
from yarl import URL

MAX_CONNECTIONS, MAX_REQUESTS, TIMEOUT = 64, 10_000, ClientTimeout(total=15)
# Fortio counts what never got a status as -1.
NO_ANSWER = -1


def number(request, name, default, most):
    text = request.query.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise web.HTTPBadRequest(text=f"{name} must be 1..{most}, not {text!r}\n")
    return int(text)


def target(text):
    """The URL of a mesh service; this machine's own ports are not for a page in a browser to reach through here."""
    url = URL(text)
    host = url.host or ""
    if url.scheme != "http" or not host or host == "localhost" or host.startswith(("127.", "[", "::")):
        raise web.HTTPBadRequest(text=f"url must be http://<service>..., not {text!r}\n")
    return url


def trace_headers(request):
    return {name: request.headers[name] for name in FORWARDED if name in request.headers}


async def load(request):
    connections, wanted = number(request, "c", 4, MAX_CONNECTIONS), number(request, "n", 20, MAX_REQUESTS)
    url, begun = target(request.query.get("url", "")), time.monotonic()
    numbers, codes, durations = iter(range(wanted)), Counter(), []

    async def worker():
        # A session of its own is a connection of its own, as each of Fortio's threads has.
        async with ClientSession(trust_env=True, timeout=TIMEOUT, connector=TCPConnector(limit=1)) as session:
            for _ in numbers:
                before = time.monotonic()
                codes[await once(session, request, url)] += 1
                durations.append(time.monotonic() - before)

    await asyncio.gather(*(worker() for _ in range(connections)))
    return web.json_response(summary(url, connections, codes, sorted(durations), time.monotonic() - begun))


async def once(session, request, url):
    headers = trace_headers(request)
    try:
        with client_span(request.get(SPAN), "GET", url, headers) as span:
            async with session.get(url, headers=headers) as response:
                answered(span, response.status, 400)
                await response.read()
                return response.status
    except (ClientError, TimeoutError):
        return NO_ANSWER


def summary(url, connections, codes, durations, took):
    """Fortio's own names; ActualDuration in nanoseconds, the histogram in seconds."""
    percentiles = [
        {"Percentile": part, "Value": durations[min(len(durations) - 1, len(durations) * part // 100)]} for part in (50, 75, 90, 99)
    ]
    histogram = {"Count": len(durations), "Min": durations[0], "Max": durations[-1], "Avg": fmean(durations), "Percentiles": percentiles}
    return {
        "RunType": "HTTP",
        "URL": str(url),
        "RequestedQPS": "max",
        "Exactly": len(durations),
        "NumThreads": connections,
        "ActualQPS": len(durations) / took,
        "ActualDuration": int(took * 1e9),
        "RetCodes": {str(code): codes[code] for code in sorted(codes)},
        "DurationHistogram": histogram,
    }


async def fetch(request):
    url, headers = target(f"http://{request.match_info['rest']}").update_query(request.query), trace_headers(request)
    try:
        with client_span(request.get(SPAN), "GET", url, headers) as span:
            async with request.app[SESSION].get(url, headers=headers, timeout=TIMEOUT) as response:
                answered(span, response.status, 400)
                return web.Response(status=response.status, body=await response.read(), content_type=response.content_type)
    except (ClientError, TimeoutError) as error:
        raise web.HTTPBadGateway(text=f"{url}: {type(error).__name__}: {error}\n") from error


async def index(_):
    return web.Response(text=__doc__ or "")


if __name__ == "__main__":
    run(application(web.get("/", index), web.get("/fortio/rest/run", load), web.get("/fortio/fetch/{rest:.+}", fetch)), "fortio", 8080)
