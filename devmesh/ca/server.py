"""The CA's HTTPS API: CSRs in, SVIDs out, for whoever holds a workload token or a current SVID."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from devmesh.ca.authority import Authority, key_pem, write_secret
from devmesh.ca.identity import SpiffeId
from devmesh.ca.tokens import TokenStore
from devmesh.localhttp import guard

MAX_CSR = 16 * 1024


class Api:
    def __init__(self, authority: Authority, tokens: TokenStore, mesh_token: str) -> None:
        self._authority, self._tokens, self._mesh_token = authority, tokens, mesh_token

    def app(self) -> web.Application:
        # A CSR is authorised by its own workload token or SVID, not by the mesh's token.
        app = web.Application(middlewares=[guard(self._mesh_token, open_writes=frozenset({"/v1/sign"}))], client_max_size=MAX_CSR)
        app.router.add_post("/v1/sign", self.sign)
        app.router.add_post("/v1/tokens", self.mint)
        app.router.add_delete("/v1/tokens/{workload}", self.revoke)
        app.router.add_get("/v1/bundle", self.bundle)
        app.router.add_get("/healthz/ready", self.ready)
        return app

    async def sign(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        if identity is None:
            return _refused(401, "a workload token or a current SVID is needed")
        try:
            body = await request.json()
            csr = x509.load_pem_x509_csr(str(body["csr"]).encode())
            issued = self._authority.sign(csr, SpiffeId.parse(identity))
        except (ValueError, KeyError, TypeError) as error:
            return _refused(400, f"CSR refused: {error}")
        return web.json_response(
            {"certificate_chain": issued.chain, "trust_bundle": issued.bundle, "expires": issued.expires.isoformat().replace("+00:00", "Z")}
        )

    def _identity(self, request: web.Request) -> str | None:
        header = request.headers.get("Authorization", "")
        if header.startswith("Bearer "):
            return self._tokens.identity_of(header.removeprefix("Bearer "))
        certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
        names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
        known = {spiffe_id for _, spiffe_id in self._tokens.entries.values()}
        # An SVID renews itself only while its workload is known: revoking the token ends both.
        return names[0] if len(names) == 1 and names[0] in known else None

    async def mint(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            workload, spiffe_id = str(body["workload"]), str(SpiffeId.parse(body["spiffe_id"]))
        except (ValueError, KeyError, TypeError) as error:
            return _refused(400, f"token refused: {error}")
        return web.json_response({"token": self._tokens.mint(workload, spiffe_id)})

    async def revoke(self, request: web.Request) -> web.Response:
        return web.Response(status=204 if self._tokens.revoke(request.match_info["workload"]) else 404)

    async def bundle(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"trust_bundle": self._authority.bundle})

    async def ready(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ready\n")


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


def server_context(authority: Authority) -> ssl.SSLContext:
    """TLS 1.3 with the CA's own certificate; clients may show an SVID."""
    key = ec.generate_private_key(ec.SECP256R1())
    issued = authority.serving(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata="".join(issued.bundle))
    fd = os.memfd_create("ca", os.MFD_CLOEXEC)
    try:
        os.write(fd, key_pem(key) + "".join(issued.chain).encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


async def run(sock: socket.socket, directory: Path, mesh_token: str, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM. `directory` keeps the authority and the hashed tokens; `root.pem` in it is what clients trust."""
    authority = Authority.open(directory)
    write_secret(directory / "root.pem", "".join(authority.bundle).encode())
    runner = web.AppRunner(
        Api(authority, TokenStore.open(directory / "tokens.json"), mesh_token).app(), access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=server_context(authority)).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ready()
    await stop.wait()
    await runner.cleanup()


def serve(sock: socket.socket, directory: Path, mesh_token: str, ready: Callable[[], None]) -> None:
    asyncio.run(run(sock, directory, mesh_token, ready))
