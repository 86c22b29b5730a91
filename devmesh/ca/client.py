"""A workload's side: it makes the key, asks for certificates, renews them, and outlives the CA's absence.

The key is in memory only: generated here, given to `ssl` through a memfd.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devmesh.ca.address import CaAddress
from devmesh.ca.authority import pem_of_key
from devmesh.ca.identity import SpiffeId, TrustBundle, renewal_time
from devmesh.ca.memfd import load_pair

log = logging.getLogger(__name__)
REQUEST_TIMEOUT_SECONDS = 5.0
# The CA starts together with us, so the first retries are quick.
FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 15.0
# How often the clocks are compared: a laptop that wakes up renews within this.
CHECK_SECONDS = 1.0
# The wall clock against the monotonic one: NTP's slewing stays far below.
CLOCK_JUMP_SECONDS = 10.0


class CaError(Exception):
    """No certificate this time; try again."""


class CaRefusedError(CaError):
    """The CA answered and said no to this proof of who we are."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts, leaf first."""

    certificate_chain: str
    private_key: str = field(repr=False)
    trust_bundle: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks: the wall's decides validity, the monotonic one shows the wall's jumps."""

    wall_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.wall_ns() / 1e9, UTC)

    def offset(self) -> float:
        return self.wall_ns() / 1e9 - self.monotonic()


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate_request(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId) -> str:
    """Give the PEM of a CSR for this identity."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def spiffe_ids_of(certificate: Any) -> list[str]:
    """Give the URI SANs of what `getpeercert()` returned."""
    return [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]


def require_peer(context: ssl.SSLContext, spiffe_id: SpiffeId) -> ssl.SSLContext:
    """Make every handshake of this client context fail unless the peer is that workload: the chain alone says "in the mesh"."""

    class CheckedPeer(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            ids = spiffe_ids_of(self.getpeercert())
            if ids != [str(spiffe_id)]:
                raise ssl.SSLCertVerificationError(f"the peer is {', '.join(ids) or 'nobody'}, not {spiffe_id}")

    context.sslobject_class = CheckedPeer
    return context


class WorkloadIdentity:
    """The current SVID of one workload. `start` once; `credentials` is None until the CA has answered for the first time."""

    def __init__(
        self,
        ca: CaAddress,
        spiffe_id: SpiffeId,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.spiffe_id = spiffe_id
        self._ca = ca
        self._clock = clock or Clock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._check_seconds = check_seconds
        self._credentials: Credentials | None = None
        self._callbacks: list[Callable[[Credentials], None]] = []
        self._live_contexts: list[ssl.SSLContext] = []
        self._ready = asyncio.Event()
        self._renew_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.renewals = 0
        self.failures = 0
        self.last_error = ""

    @property
    def credentials(self) -> Credentials | None:
        return self._credentials

    @property
    def is_valid(self) -> bool:
        """Whether there is a certificate that has not ended."""
        return self._credentials is not None and self._clock.now() < self._credentials.expires

    def start(self) -> None:
        """Begin asking and renewing until `close`."""
        self._task = asyncio.create_task(self._run(), name="svid renewal")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def ready(self) -> Credentials:
        """Wait for the first certificate."""
        await self._ready.wait()
        if self._credentials is None:
            raise CaError("closed before the first certificate")
        return self._credentials

    def on_rotate(self, callback: Callable[[Credentials], None]) -> None:
        """Call it with every new certificate; a first one that is already there is not told again."""
        self._callbacks.append(callback)

    def renew_soon(self) -> None:
        """Renew without waiting for half life."""
        self._renew_now.set()

    # TLS

    def server_context(self) -> ssl.SSLContext:
        """Mutual TLS 1.3 for a listener; live: rotations reach the same object. Only after `ready`."""
        context = self._live(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        return context

    def client_context(self, peer: SpiffeId | None = None) -> ssl.SSLContext:
        """Mutual TLS 1.3 for a client; live as `server_context`. With `peer`, only that workload is talked to."""
        context = self._live(ssl.PROTOCOL_TLS_CLIENT)
        return require_peer(context, peer) if peer is not None else context

    def _live(self, side: int) -> ssl.SSLContext:
        if self._credentials is None:
            raise CaError(f"{self.spiffe_id} has no certificate yet")
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # a workload is a SPIFFE ID, not a host name
        context.verify_mode = ssl.CERT_REQUIRED
        _load(context, self._credentials)
        self._live_contexts.append(context)
        return context

    # Renewal

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self.renew()
            except CaError as error:
                self.failures, self.last_error = self.failures + 1, str(error)
                failures += 1
                if failures in {1, 8} or failures % 60 == 0:
                    log.warning("no new certificate for %s (attempt %d): %s", self.spiffe_id, failures, error)
                await asyncio.sleep(self._backoff(failures))
            else:
                failures, self.last_error = 0, ""
                await self._until_due()

    def _backoff(self, failures: int) -> float:
        ceiling = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16), MAX_BACKOFF_SECONDS)
        return ceiling * self._rng.uniform(0.5, 1.0)

    async def _until_due(self) -> None:
        """Return at half life, at once after the wall clock has jumped, or when told to."""
        credentials = await self.ready()
        due = renewal_time(credentials.issued, credentials.expires, self._rng)
        offset = self._clock.offset()
        self._renew_now.clear()
        while self._clock.now() < due and not self._renew_now.is_set():
            if abs(self._clock.offset() - offset) > CLOCK_JUMP_SECONDS:
                log.info("the wall clock jumped by %.0f s: renewing", self._clock.offset() - offset)
                return
            # Not `wait_for`: before Python 3.12 that swallows a cancellation which meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._check_seconds):
                    await self._renew_now.wait()

    async def renew(self) -> Credentials:
        """Get a certificate for a new key; CaError when there is none to be had now."""
        key = new_key()
        body: dict[str, Any] = {"csr": certificate_request(key, self.spiffe_id)}
        if self._ca.secret_ttl is not None:
            body["validity_seconds"] = self._ca.secret_ttl
        answer = await self._ask(body)
        credentials = self._checked(answer, key)
        self._credentials = credentials
        self.renewals += 1
        for context in self._live_contexts:
            _load(context, credentials)
        self._ready.set()
        for callback in self._callbacks:
            callback(credentials)
        return credentials

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """By the SVID while it is valid, else by the token; by the token too when the CA no longer takes the SVID."""
        if self._credentials is not None and self.is_valid:
            try:
                return await self._post(body, self._credentials, None)
            except CaRefusedError as error:
                log.info("the CA refused the current SVID, trying the token: %s", error)
        try:
            token = self._ca.token_file.read_text().strip()
        except OSError as error:
            raise CaError(f"no workload token: {error}") from error
        return await self._post(body, None, token)

    async def _post(self, body: dict[str, Any], credentials: Credentials | None, token: str | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        try:
            context = self._context_for_ca(credentials)
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.post(f"{self._ca.url}/v1/sign", json=body, ssl=context) as response,
            ):
                if response.status in {401, 403}:
                    raise CaRefusedError(f"the CA refused ({response.status}): {(await response.text())[:200]}")
                if response.status != 200:
                    raise CaError(f"the CA answered {response.status}: {(await response.text())[:200]}")
                return dict(await response.json())
        except ssl.SSLError as error:
            raise CaRefusedError(f"TLS with the CA failed: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # In TLS 1.3 a server refuses a client certificate after the handshake: whatever breaks a made connection may be that.
            refused = credentials is not None and not isinstance(error, aiohttp.ClientConnectorError | TimeoutError)
            raise (CaRefusedError if refused else CaError)(f"the CA at {self._ca.url} does not answer: {error!r}") from error

    def _context_for_ca(self, credentials: Credentials | None) -> ssl.SSLContext:
        """Host name checked, because every workload's chain ends in the same root; only the CA's own certificate names 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self._ca.root_file.read_text())
        if credentials is not None:
            load_pair(context, credentials.certificate_chain, credentials.private_key)
        return context

    def _checked(self, answer: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> Credentials:
        """Believe the answer only when it is for our key and our name."""
        try:
            chain = [str(pem) for pem in answer["certificate_chain"]]
            bundle = TrustBundle.parse("".join(answer["trust_bundle"]))
            leaf = x509.load_pem_x509_certificate(chain[0].encode())
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            ids = names.get_values_for_type(x509.UniformResourceIdentifier)
        except (KeyError, IndexError, TypeError, ValueError, x509.ExtensionNotFound) as error:
            raise CaError(f"the CA's answer cannot be read: {error!r}") from error
        if ids != [str(self.spiffe_id)] or leaf.public_key() != key.public_key():
            raise CaError(f"the CA's certificate is for {ids} and not for our key and {self.spiffe_id}")
        return Credentials("".join(chain), pem_of_key(key), bundle.pem, self._clock.now(), leaf.not_valid_after_utc)


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    load_pair(context, credentials.certificate_chain, credentials.private_key)
    context.load_verify_locations(cadata=credentials.trust_bundle)
