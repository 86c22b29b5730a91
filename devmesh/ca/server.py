"""15011: signs CSRs for whoever proves to be a workload, by its token or by its current SVID. Anything unclear is refused."""

import asyncio
import logging
import random
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from devmesh.ca.authority import BACKDATE, SVID_LIFE, Authority, Clock, InvalidRequestError, wall_clock
from devmesh.ca.identity import InvalidSpiffeIdError, SpiffeId, renewal_time
from devmesh.ca.memfd import load_pair
from devmesh.ca.tokens import TokenStore
from devmesh.localhttp import guard
from devmesh.telemetry_setup import Telemetry

log = logging.getLogger(__name__)
# A CSR of EC P-256 has 500 bytes.
MAX_REQUEST_BYTES = 16 * 1024
# The server's own certificate is looked at this often: until a machine that wakes up has a valid one, no workload gets its own.
OWN_CERTIFICATE_CHECK_SECONDS = 1.0


def _refusal(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


async def _body(request: web.Request, *fields: str) -> list[str]:
    """Give these string fields of the JSON body; ValueError when one is missing."""
    body: Any = await request.json()
    values = [body.get(field) for field in fields] if isinstance(body, dict) else []
    strings = [value for value in values if isinstance(value, str) and value]
    if len(strings) < len(fields):
        raise ValueError(f"the body must be a JSON object with the strings {', '.join(fields)}")
    return strings


async def _life(request: web.Request) -> timedelta:
    """Give what `validity_seconds` of the JSON body asks for (validity_duration of Istio's CSR), as long as usual without it."""
    asked: Any = (await request.json()).get("validity_seconds")
    if asked is None:
        return SVID_LIFE
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 < asked < timedelta.max.total_seconds():
        raise ValueError("validity_seconds must be a number of seconds")
    return timedelta(seconds=asked)


class CaServer:
    """The routes of devmesh/README.md, "CA"."""

    def __init__(
        self,
        authority: Authority,
        tokens: TokenStore,
        mesh_token: str,
        telemetry: Telemetry | None = None,
        host_names: Sequence[str] = (),
    ) -> None:
        self._host_names = host_names
        self._authority = authority
        self._tokens = tokens
        self._mesh_token = mesh_token
        self._telemetry = telemetry or Telemetry("devmesh-ca", None)

    def app(self) -> web.Application:
        guarded = guard(self._mesh_token, open_writes=frozenset({"/v1/sign"}), names=self._host_names)
        app = web.Application(middlewares=[guarded], client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/v1/sign", self._sign)
        app.router.add_post("/v1/tokens", self._mint)
        app.router.add_delete("/v1/tokens/{workload}", self._revoke)
        app.router.add_get("/v1/bundle", self._bundle)
        app.router.add_get("/healthz/ready", self._ready)
        return app

    async def _sign(self, request: web.Request) -> web.Response:
        with self._telemetry.span("sign SVID", traceparent=request.headers.get("traceparent")):
            caller = self._caller(request)
            if caller is None:
                return _refusal(401, "a workload token or a current SVID is needed")
            try:
                (csr,) = await _body(request, "csr")
                issued = self._authority.sign(csr, caller, await _life(request))
            except InvalidRequestError as error:
                log.warning("refused to sign for %s: %s", caller, error)
                return _refusal(403, str(error))
            except ValueError as error:
                return _refusal(400, str(error))
        log.info("signed %s until %s", caller, issued.expires.isoformat())
        return web.json_response(
            {
                "certificate_chain": issued.certificate_chain,
                "trust_bundle": self._authority.trust_bundle.roots,
                "expires": issued.expires.isoformat(),
            }
        )

    def _caller(self, request: web.Request) -> SpiffeId | None:
        """A token, when one is sent, decides alone: a wrong one is not made good by a certificate."""
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            grant = self._tokens.grant_of(token) if scheme == "Bearer" else None
            return grant.spiffe_id if grant else None
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        uris = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
        # X509-SVID section 5.2: exactly one URI SAN. The handshake has verified chain and validity.
        if len(uris) != 1:
            return None
        try:
            spiffe_id = SpiffeId.parse(uris[0])
        except InvalidSpiffeIdError:
            return None
        return spiffe_id if self._tokens.knows(spiffe_id) else None

    async def _mint(self, request: web.Request) -> web.Response:
        try:
            workload, text = await _body(request, "workload", "spiffe_id")
            spiffe_id = SpiffeId.parse(text)
        except ValueError as error:
            return _refusal(400, str(error))
        if not spiffe_id.path:
            return _refusal(400, f"{spiffe_id} is the trust domain itself, not a workload")
        return web.json_response({"token": self._tokens.mint(workload, spiffe_id)})

    async def _revoke(self, request: web.Request) -> web.Response:
        workload = request.match_info["workload"]
        if not self._tokens.revoke(workload):
            return _refusal(404, f"{workload} has no token")
        return web.json_response({})

    async def _bundle(self, _: web.Request) -> web.Response:
        return web.json_response({"trust_bundle": self._authority.trust_bundle.roots})

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ready\n")


def server_context(authority: Authority) -> ssl.SSLContext:
    """Asks for a client certificate and takes its absence; one that does not verify ends the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority.trust_bundle.pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would carry a client certificate that nobody checked again.
    context.num_tickets = 0
    return context


async def _keep_certificate(context: ssl.SSLContext, authority: Authority, host_names: Sequence[str], clock: Clock) -> None:
    """Give the context a fresh certificate of our own at half life, for ever; at once, too, when the clock says that ours is from the future."""
    while True:
        began = clock()
        issued, key = authority.server_certificate(host_names)
        load_pair(context, "".join(issued.certificate_chain), key)
        due = renewal_time(began, issued.expires, random.Random())  # noqa: S311 - spreads load, keeps no secret
        while began - BACKDATE < clock() < due:  # noqa: ASYNC110 - the wall clock may jump, no event tells
            await asyncio.sleep(OWN_CERTIFICATE_CHECK_SECONDS)


async def run(
    sock: socket.socket,
    directory: Path,
    mesh_token: str,
    ready: Callable[[], None],
    telemetry: Telemetry | None = None,
    host_names: Sequence[str] = (),
) -> None:
    """Serve until cancelled; `directory`/root.pem exists when `ready` is called. `host_names` are ours besides loopback's."""
    authority = Authority.open(directory)
    server = CaServer(authority, TokenStore(directory / "tokens.json"), mesh_token, telemetry, host_names)
    context = server_context(authority)
    keeper = asyncio.create_task(_keep_certificate(context, authority, host_names, wall_clock), name="own certificate")
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=1.0)
    try:
        await asyncio.sleep(0)  # the keeper's first certificate is loaded before the first connection
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=context).start()
        ready()
        await keeper
    finally:
        keeper.cancel()
        await runner.cleanup()


async def serve(
    sock: socket.socket,
    directory: Path,
    mesh_token: str,
    ready: Callable[[], None],
    otlp_url: str | None = None,
    host_names: Sequence[str] = (),
) -> None:
    """Run until SIGTERM or SIGINT: the launcher's entry."""
    telemetry = Telemetry("devmesh-ca", otlp_url)
    telemetry.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = asyncio.create_task(run(sock, directory, mesh_token, ready, telemetry, host_names), name="ca")
    stopping = asyncio.create_task(stop.wait(), name="signal")
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        running.cancel()
        stopping.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        telemetry.shutdown()
