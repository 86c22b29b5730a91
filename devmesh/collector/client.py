"""Traces for the command line: Jaeger's API v3, and v1 where v3 is not served. devmesh's collector and a real Jaeger answer alike."""

from collections.abc import Mapping
from typing import Any

import aiohttp

from devmesh.collector import client_v1, client_v3
from devmesh.collector.spans import Span, TraceSummary, summary
from devmesh.errors import DevmeshError

TIMEOUT = aiohttp.ClientTimeout(total=15)
# Whether a trace failed is known only once it is here.
ERRORS_DEPTH = 500
REQUEST_ID = "guid:x-request-id"  # as Envoy names the tag
OWN_SERVICES = ("devmesh-control", "devmesh-ca")


class TraceStoreClient:
    """One trace store at `url`. Every method raises DevmeshError when nothing answers there."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def services(self) -> tuple[list[str], bool]:
        """The services, and whether v3 is spoken: an older Jaeger answers its paths with 404 or with its own page."""
        answer = await self._ask(client_v3.SERVICES)
        if answer is not None and "services" in answer:
            return list(answer["services"] or ()), True
        answer = await self._ask(client_v1.SERVICES)
        if answer is None:
            raise DevmeshError(
                f"what answers at {self._url} is no trace store: it speaks neither of Jaeger's query APIs", hint="devmesh status"
            )
        return list(answer.get("data") or ()), False

    async def find(self, service: str, depth: int, *, v3: bool) -> list[Span]:
        api = client_v3 if v3 else client_v1
        return list(api.spans(await self._ask(api.TRACES, api.search(service, depth)) or {}))

    async def trace(self, trace_id: str, *, v3: bool) -> list[Span]:
        api = client_v3 if v3 else client_v1
        return list(api.spans(await self._ask(f"{api.TRACES}/{trace_id}") or {}))

    async def _ask(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """The answer; empty for a 404 that says so in JSON (Jaeger's word for "none"), None for what is no JSON."""
        try:
            async with self._session.get(self._url + path, params=query) as response:
                body = await _json(response)
                if body is not None and response.status not in (200, 404):
                    raise DevmeshError(f"{self._url}{path}: {response.status} {_reason(body)}", "devmesh traces list")
                return {} if body is not None and response.status == 404 else body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DevmeshError(f"no trace store answers at {self._url}: {error}", hint="devmesh status") from error


async def list_traces(
    url: str,
    service: str | None = None,
    limit: int = 20,
    errors_only: bool = False,  # noqa: FBT001, FBT002 - the CLI's contract
    *,
    own: bool = False,
) -> list[TraceSummary]:
    """The newest traces first, with `own` those of the mesh's own servers too; raises DevmeshError when nothing answers at `url`."""
    depth = max(limit, ERRORS_DEPTH) if errors_only else limit
    traces = await _newest(url, service, depth, own=own)
    found = sorted((summary(list(spans.values())) for spans in traces.values()), key=lambda trace: trace.start, reverse=True)
    return [trace for trace in found if trace.error or not errors_only][:limit]


async def _newest(url: str, service: str | None, depth: int, *, own: bool) -> dict[str, dict[str, Span]]:
    """Spans by trace and id; `depth` traces of each service."""
    traces: dict[str, dict[str, Span]] = {}
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        client = TraceStoreClient(session, url)
        services, v3 = await client.services()
        for one in [service] if service else [one for one in services if own or one not in OWN_SERVICES]:
            for span in await client.find(one, depth, v3=v3):
                traces.setdefault(span.trace_id, {})[span.span_id] = span
    return traces


async def find_request(url: str, request_id: str) -> str:
    """The trace of a request by its x-request-id; raises DevmeshError when none of the newest is that."""
    for trace_id, spans in (await _newest(url, None, ERRORS_DEPTH, own=False)).items():
        if any(span.attributes.get(REQUEST_ID) == request_id for span in spans.values()):
            return trace_id
    raise DevmeshError(
        f"no trace of request {request_id} among the newest", "devmesh traces list: not every request is sampled (profile demo: all)"
    )


async def get_trace(url: str, trace_id: str) -> list[Span]:
    """All spans of a trace by start; raises DevmeshError when it is not known or nothing answers."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        client = TraceStoreClient(session, url)
        _, v3 = await client.services()
        spans = await client.trace(trace_id, v3=v3)
    if not spans:
        raise DevmeshError(f"no trace {trace_id}", "devmesh traces list")
    return sorted(spans, key=lambda span: span.start)


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any] | None:
    """None for what is no JSON object; Jaeger says text/plain of its errors."""
    try:
        body = await response.json(content_type=None)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _reason(body: Mapping[str, Any]) -> str:
    """v3 says {"error": {"message"}}, v1 {"errors": [{"msg"}]}."""
    told = [*(one.get("msg", "") for one in body.get("errors") or ()), (body.get("error") or {}).get("message", "")]
    return " ".join(filter(None, told))
