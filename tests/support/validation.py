"""Kubernetes' API server with Istio's CRDs, and istiod's webhook: what they say of resources (tests/oracle/validate.go)."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is why a document is refused, "" when it is taken."""

    error: str = ""
    warning: str = ""


def verdicts(oracle: Path, documents: Sequence[str]) -> list[Verdict]:
    """One process for all of them, each a resource in YAML."""
    lines = "".join(json.dumps(one) + "\n" for one in documents)
    done = subprocess.run([oracle, "-validate"], input=lines, capture_output=True, text=True, check=True)
    return [Verdict(**json.loads(line)) for line in done.stdout.splitlines()]
