"""SPIFFE IDs, trust bundles and when a certificate is renewed: values only."""

import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

TRUST_DOMAIN = "cluster.local"
# SPIFFE-ID section 2.1: lower-case letters, digits, dots, dashes, underscores.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
# SPIFFE-ID section 2.2: letters, digits, dots, dashes, underscores; no `.`, `..` or empty segments.
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----\n", re.DOTALL)
# SPIFFE-ID section 2.3: implementations must support this many bytes; longer ones are refused.
MAX_LENGTH = 2048
# Ten sidecars started together must not renew together.
RENEWAL_JITTER = 0.1


class InvalidSpiffeIdError(ValueError):
    """Not a SPIFFE ID; the message says which rule."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://<trust domain>/<path>`; `path` is without its first slash and empty for the trust domain's own ID."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Read an ID; InvalidSpiffeIdError for anything that is not one in its canonical form."""
        if not text.startswith("spiffe://") or len(text) > MAX_LENGTH:
            raise InvalidSpiffeIdError(f"{text[:80]!r} does not begin with spiffe:// or is longer than {MAX_LENGTH}")
        domain, slash, path = text.removeprefix("spiffe://").partition("/")
        if not _TRUST_DOMAIN.fullmatch(domain):
            raise InvalidSpiffeIdError(f"{text!r}: {domain!r} is not a trust domain")
        if slash and not all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in path.split("/")):
            raise InvalidSpiffeIdError(f"{text!r}: {path!r} is not a path of plain segments")
        return cls(domain, path)

    @classmethod
    def of(cls, namespace: str, service_account: str, trust_domain: str = TRUST_DOMAIN) -> "SpiffeId":
        """Give Istio's ID of a service account."""
        return cls.parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.path}" if self.path else f"spiffe://{self.trust_domain}"


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Root certificates of one trust domain, PEM, newest first."""

    roots: tuple[str, ...]

    @classmethod
    def parse(cls, pem: str) -> "TrustBundle":
        """Split a PEM text; ValueError when there is no certificate in it."""
        roots = split_pem(pem)
        if not roots:
            raise ValueError("no certificate in the trust bundle")
        return cls(roots)

    @property
    def pem(self) -> str:
        return "".join(self.roots)


def split_pem(text: str) -> tuple[str, ...]:
    """Give each certificate of a PEM text, ending in a newline."""
    return tuple(_CERTIFICATE.findall(text.replace("\r\n", "\n").rstrip("\n") + "\n"))


def renewal_time(issued: datetime, expires: datetime, rng: random.Random) -> datetime:
    """Half of the life, a tenth of the life earlier or later."""
    life: timedelta = expires - issued
    return issued + life * (0.5 + rng.uniform(-RENEWAL_JITTER, RENEWAL_JITTER))
