"""Istio's profiles: what each of them switches on (istio/istio manifests/profiles, and the charts' own for `demo` and `remote`)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from devmesh.config.operator.merge import Json, merged
from devmesh.config.schema import suggest
from devmesh.config.yaml import read_documents
from devmesh.errors import UsageError

PROFILES = ("default", "demo", "empty", "minimal", "remote")
ISTIO_DEFAULT = "default"
UP_DEFAULT = "demo"
"""What `up` takes when nobody chose: one machine is for looking, so every trace is sampled."""


def profile(name: str) -> Json:
    """A profile's whole IstioOperator: `default` with the named one over it. Raises UsageError for a name that is none."""
    if name not in PROFILES:
        near = suggest(name, PROFILES)
        raise UsageError(f"there is no profile {name!r}; there are {', '.join(PROFILES)}", near or "devmesh profile list")
    base = merged(_read(ISTIO_DEFAULT), {"spec": {"profile": name}})
    return base if name == ISTIO_DEFAULT else merged(base, _read(name))


@functools.cache
def _read(name: str) -> Json:
    path = Path(__file__).with_name("profiles") / f"{name}.yaml"
    documents, _ = read_documents(path.read_text(), str(path))
    value: dict[str, Any] = documents[0].value
    return value
