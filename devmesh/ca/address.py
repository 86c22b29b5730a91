"""Where a workload finds its CA: apart from the client, so that who only writes it down needs no cryptography."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CaAddress:
    """Where the CA is, the only root it is believed by, the file with this workload's token, and for how long a certificate is asked.

    `secret_ttl` is seconds (Istio's SECRET_TTL); None leaves it to the CA.
    """

    url: str
    root_file: Path
    token_file: Path
    secret_ttl: float | None = None
