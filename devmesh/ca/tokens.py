"""Workload tokens: 256 random bits each, kept as SHA-256 only, bound to one workload and its SPIFFE ID."""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devmesh.ca.files import private_directory, write_private
from devmesh.ca.identity import SpiffeId

TOKEN_BYTES = 32


def _random_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def _digest(token: str) -> str:
    # No salt and no stretching: 256 random bits cannot be guessed.
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Grant:
    """Who a token speaks for."""

    workload: str
    spiffe_id: SpiffeId


class TokenStore:
    """One token per workload; a new one replaces the old. Every change that was asked for is on disk before it is answered."""

    def __init__(self, file: Path, new_token: Callable[[], str] = _random_token) -> None:
        """Read what was kept; a file that cannot be read raises, because an empty store would hide a revocation."""
        self._file = file
        self._new_token = new_token
        private_directory(file.parent)
        stored = json.loads(file.read_bytes()) if file.exists() else {}
        self._grants = {digest: Grant(entry["workload"], SpiffeId.parse(entry["spiffe_id"])) for digest, entry in stored.items()}

    def mint(self, workload: str, spiffe_id: SpiffeId) -> str:
        """Give a token that is valid until it is revoked."""
        return self.mint_all({workload: spiffe_id}, durable=True)[workload]

    def mint_all(self, identities: Mapping[str, SpiffeId], *, durable: bool) -> dict[str, str]:
        """Give each workload a token, as `mint`. Without `durable` they need not outlive the machine: whoever mints them does so at each start."""
        tokens = {workload: self._new_token() for workload in identities}
        kept = {digest: grant for digest, grant in self._grants.items() if grant.workload not in identities}
        minted = {_digest(token): Grant(workload, identities[workload]) for workload, token in tokens.items()}
        self._keep(kept | minted, durable=durable)
        return tokens

    def revoke(self, workload: str) -> bool:
        """Forget a workload's token; False when there was none."""
        left = {digest: grant for digest, grant in self._grants.items() if grant.workload != workload}
        found = len(left) < len(self._grants)
        if found:
            self._keep(left)
        return found

    def grant_of(self, token: str) -> Grant | None:
        # The lookup is by digest, whose timing says nothing about the token.
        return self._grants.get(_digest(token))

    def knows(self, spiffe_id: SpiffeId) -> bool:
        """Whether any workload with this ID still has a token: an SVID alone renews nothing after a revocation."""
        return any(grant.spiffe_id == spiffe_id for grant in self._grants.values())

    def _keep(self, grants: dict[str, Grant], *, durable: bool = True) -> None:
        stored = {digest: {"workload": grant.workload, "spiffe_id": str(grant.spiffe_id)} for digest, grant in grants.items()}
        write_private(self._file, json.dumps(stored, indent=1).encode(), durable=durable)
        self._grants = grants
