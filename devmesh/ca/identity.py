"""SPIFFE IDs (github.com/spiffe/spiffe SPIFFE-ID.md) and when to renew."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 2048
TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://<trust domain>/<path>`; Istio's path is `ns/<namespace>/sa/<service account>`."""

    trust_domain: str
    path: str

    @staticmethod
    def parse(text: str) -> SpiffeId:
        """Raise ValueError for whatever the specification does not allow."""
        scheme, _, rest = text.partition("://")
        domain, _, path = rest.partition("/")
        segments = path.split("/")
        if scheme != "spiffe" or len(text) > MAX_LENGTH or TRUST_DOMAIN.fullmatch(domain) is None:
            raise ValueError(f"not a SPIFFE ID: {text[:200]!r}")
        if any(SEGMENT.fullmatch(segment) is None or segment in (".", "..") for segment in segments):
            raise ValueError(f"not a SPIFFE ID path: {text[:200]!r}")
        return SpiffeId(domain, path)

    @staticmethod
    def of(namespace: str, service_account: str, trust_domain: str = "cluster.local") -> SpiffeId:
        return SpiffeId.parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.path}"


def renewal_delay(not_before: float, not_after: float, now: float, jitter: float) -> float:
    """Seconds until half of the lifetime, moved by up to 10 % (`jitter` in [0, 1)); 0 when that has passed."""
    half = not_before + (not_after - not_before) * (0.5 + 0.1 * (jitter - 0.5))
    return max(0.0, half - now)
