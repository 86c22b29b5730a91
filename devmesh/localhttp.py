"""The guard before every HTTP listener of ours on loopback: Host, Origin and bearer token.

A browser page can reach loopback by DNS rebinding or a cross-site request; neither can forge Host and Origin.
Writes and secrets additionally need the mesh's token (`.devmesh/token`).
"""

import hmac
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import web

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def host_of(authority: str) -> str:
    """`[::1]:80` -> `::1`, `localhost:80` -> `localhost`; a malformed authority gives an empty string."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


def is_local(host: str | None, origin: str | None, hosts: Collection[str] = LOCAL_HOSTS) -> bool:
    """Whether a request with these Host and Origin headers comes from this machine's own pages or tools."""
    if host is None or host_of(host) not in hosts:
        return False
    return origin is None or (origin.startswith(("http://", "https://")) and host_of(urlsplit(origin).netloc) in hosts)


def carries_token(request: web.Request, token: str) -> bool:
    """Whether `Authorization: Bearer` or `X-Consul-Token` equals token, compared in constant time."""
    bearer = request.headers.get("Authorization", "")
    given = bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else request.headers.get("X-Consul-Token", "")
    return hmac.compare_digest(given.encode(), token.encode())


def _connected_to(request: web.Request) -> str:
    """Our end of the connection; an empty string when it has gone."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return str(name[0]) if isinstance(name, tuple) else ""


def guard(
    token: str | None,
    *,
    open_writes: frozenset[str] = frozenset(),
    secret_reads: tuple[str, ...] = (),
    names: Collection[str] = (),
    by_address: bool = False,
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """aiohttp middleware: 403 for a foreign Host or Origin; 401 for writes and `secret_reads` prefixes without token.

    `open_writes` are paths that anyone local may POST to (telemetry intake). `token=None` refuses all other writes.
    `names` are further host names of this server, inside a container network. `by_address` takes the address itself that was connected
    to for a Host, as scrapers of a container network give it: a rebound name is never an address.
    """
    hosts = LOCAL_HOSTS | set(names)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        own = {_connected_to(request)} if by_address else set()
        if not is_local(request.headers.get("Host"), request.headers.get("Origin"), hosts | own):
            return web.Response(status=403, text="devmesh: Host and Origin must be 127.0.0.1, localhost or [::1]\n")
        needs_token = request.method not in SAFE_METHODS and request.path not in open_writes
        needs_token = needs_token or request.path.startswith(secret_reads) if secret_reads else needs_token
        if needs_token and (token is None or not carries_token(request, token)):
            return web.Response(status=401, text="devmesh: this needs `Authorization: Bearer` with the token in .devmesh/token\n")
        return await handler(request)

    return middleware
