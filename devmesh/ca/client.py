"""A workload's identity: its key never leaves the process, its certificate comes from the CA and is renewed at half life.

The CA may be absent: the current certificate is used until it ends, and asked for again with growing waits. After a night's sleep the wall
clock has jumped and the renewal happens at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from devmesh.ca.authority import key_pem
from devmesh.ca.identity import renewal_delay

log = logging.getLogger(__name__)
CHECK_PERIOD = 5.0  # seconds between looks at the wall clock
MAX_BACKOFF = 10.0
FIRST_BACKOFF = 0.05


class CaRefused(Exception):
    """The CA answered and said no."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts."""

    certificate_chain: str
    private_key: str
    trust_bundle: str


class WorkloadIdentity:
    """Call `start`, read `credentials`, `stop` at the end."""

    def __init__(
        self,
        url: str,
        root_file: Path,
        token_file: Path,
        spiffe_id: str,
        *,
        rng: random.Random | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self._url, self._root_file, self._token_file = url, root_file, token_file
        self.spiffe_id = spiffe_id
        self._rng, self._wall = rng or random.Random(), wall or (lambda: time.time_ns() / 1e9)
        self.credentials: Credentials | None = None
        self.not_before = self.expires = 0.0
        self.rotations = 0
        self.on_rotate: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return with the first certificate; tries until there is one."""
        backoff = FIRST_BACKOFF
        while not await self._try():
            await asyncio.sleep(backoff * (0.5 + self._rng.random()))
            backoff = min(backoff * 2, MAX_BACKOFF)
        self._task = asyncio.get_running_loop().create_task(self._renew(), name="SVID renewal")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _renew(self) -> None:
        backoff = FIRST_BACKOFF
        jitter = self._rng.random()
        while True:
            delay = renewal_delay(self.not_before, self.expires, self._wall(), jitter)
            if delay > 0:
                # Short sleeps, so that a jump of the wall clock (suspend) is seen soon after waking.
                await asyncio.sleep(min(delay, CHECK_PERIOD))
            elif await self._try():
                backoff, jitter = FIRST_BACKOFF, self._rng.random()
            else:
                await asyncio.sleep(backoff * (0.5 + self._rng.random()))
                backoff = min(backoff * 2, MAX_BACKOFF)

    async def _try(self) -> bool:
        try:
            await self.renew()
        except (aiohttp.ClientError, OSError, TimeoutError, CaRefused, ssl.SSLError) as error:
            log.warning("no certificate from %s yet: %s", self._url, error)
            return False
        return True

    async def renew(self) -> None:
        """Ask for a new SVID now. Raises CaRefused, aiohttp.ClientError, OSError."""
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        body = {"csr": csr.public_bytes(Encoding.PEM).decode()}
        with_svid = self.credentials is not None and self._wall() < self.expires
        headers = {} if with_svid else {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        connector = aiohttp.TCPConnector(ssl=self._ca_context(with_svid=with_svid))
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(f"{self._url}/v1/sign", json=body, headers=headers) as response,
        ):
            answer = await response.json()
            if response.status != 200:
                raise CaRefused(f"{response.status}: {answer.get('error', '')}")
        self._take("".join(answer["certificate_chain"]), key_pem(key).decode(), "".join(answer["trust_bundle"]))

    def _take(self, chain: str, key: str, bundle: str) -> None:
        leaf = x509.load_pem_x509_certificate(chain.encode())
        self.not_before, self.expires = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        self.credentials = Credentials(chain, key, bundle)
        self.rotations += 1
        for callback in self.on_rotate:
            callback()

    def _ca_context(self, *, with_svid: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cafile=str(self._root_file))
        if with_svid and self.credentials is not None:
            _load(context, self.credentials)
        return context

    def _mutual(self, side: int) -> ssl.SSLContext:
        if self.credentials is None:
            raise CaRefused("no certificate yet")
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # SPIFFE IDs are checked by the caller
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.credentials.trust_bundle)
        _load(context, self.credentials)
        return context

    def client_context(self) -> ssl.SSLContext:
        """mTLS to the control plane, trusting the bundle."""
        return self._mutual(ssl.PROTOCOL_TLS_CLIENT)

    def server_context(self) -> ssl.SSLContext:
        """mTLS for clients that must show an SVID."""
        return self._mutual(ssl.PROTOCOL_TLS_SERVER)

    def reload(self, context: ssl.SSLContext) -> None:
        """Give a context in use the current certificate; new handshakes take it."""
        if self.credentials is not None:
            _load(context, self.credentials)

    @property
    def expires_at(self) -> datetime | None:
        return datetime.fromtimestamp(self.expires).astimezone() if self.expires else None


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Through a memfd: `ssl` takes file names only, and the key must not reach a disk."""
    fd = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.write(fd, (credentials.private_key + credentials.certificate_chain).encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
