"""Workload tokens: one SPIFFE ID each, reusable until revoked, known to the CA only as hashes."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from devmesh.ca.authority import write_secret

BITS = 256


@dataclass(slots=True)
class TokenStore:
    """`entries`: workload -> (sha256 of the token, SPIFFE ID)."""

    file: Path
    entries: dict[str, tuple[str, str]] = field(default_factory=dict)

    @staticmethod
    def open(file: Path) -> TokenStore:
        entries = {name: (one[0], one[1]) for name, one in json.loads(file.read_text()).items()} if file.exists() else {}
        return TokenStore(file, entries)

    def mint(self, workload: str, spiffe_id: str) -> str:
        token = secrets.token_hex(BITS // 8)
        self.entries[workload] = (_digest(token), spiffe_id)
        self._save()
        return token

    def revoke(self, workload: str) -> bool:
        known = self.entries.pop(workload, None) is not None
        self._save()
        return known

    def identity_of(self, token: str) -> str | None:
        """The SPIFFE ID that a token stands for."""
        digest = _digest(token)
        return next((spiffe_id for known, spiffe_id in self.entries.values() if hmac.compare_digest(known, digest)), None)

    def _save(self) -> None:
        write_secret(self.file, json.dumps(self.entries).encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
