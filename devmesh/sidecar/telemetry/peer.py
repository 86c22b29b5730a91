"""Istio's peer metadata (`x-envoy-peer-metadata`): who is at the other end, for metric labels.

Base64 of a google.protobuf.Struct with Istio's keys (istio/proxy, extensions/common/metadata_object.cc), so that a sidecar of ours and
Istio's read each other.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from devmesh.sidecar.telemetry.protobuf import message, read_fields

LONGEST = 4096  # bytes of the header; Istio's own is below 1 KiB, and labels are kept


@dataclass(frozen=True, slots=True)
class PeerLabels:
    workload: str = "unknown"
    namespace: str = "unknown"
    app: str = "unknown"
    version: str = "unknown"
    service: str = "unknown"
    cluster: str = "unknown"


UNKNOWN = PeerLabels()
KEYS = {"WORKLOAD_NAME": "workload", "NAMESPACE": "namespace", "CLUSTER_ID": "cluster"}
LABELS = {
    "app": "app",
    "version": "version",
    "service.istio.io/canonical-name": "service",
    "service.istio.io/canonical-revision": "version",
}


def encode(labels: PeerLabels) -> bytes:
    owner = f"kubernetes://apis/apps/v1/namespaces/{labels.namespace}/deployments/{labels.workload}"
    values = {key: getattr(labels, attribute) for key, attribute in KEYS.items()}
    strings = {**values, "NAME": labels.workload, "OWNER": owner}
    own = {key: _string(getattr(labels, attribute)) for key, attribute in LABELS.items()}
    fields = {**{key: _string(value) for key, value in strings.items()}, "LABELS": message(5, _struct(own))}
    return base64.b64encode(_struct(fields))


def _string(value: str) -> bytes:
    """A Value that is a string."""
    return message(3, value.encode())


def _struct(fields: dict[str, bytes]) -> bytes:
    """A map is a repeated `{1: key, 2: Value}` in field 1; sorted as deterministic serialization sorts them."""
    return b"".join(message(1, message(1, key.encode()) + message(2, fields[key])) for key in sorted(fields))


def decode(value: bytes) -> PeerLabels:
    """UNKNOWN for whatever is not such a Struct."""
    if len(value) > LONGEST:
        return UNKNOWN
    try:
        fields = _entries(base64.b64decode(value, validate=True))
        found = {attribute: fields[key][3].decode() for key, attribute in KEYS.items() if 3 in fields.get(key, {})}
        labels = _entries(fields.get("LABELS", {}).get(5, b""))
        found.update({attribute: labels[key][3].decode() for key, attribute in LABELS.items() if 3 in labels.get(key, {})})
    except (binascii.Error, ValueError, IndexError, KeyError):
        return UNKNOWN
    return PeerLabels(**found)


def _entries(struct: bytes) -> dict[str, dict[int, bytes]]:
    """Key -> fields of its Value."""
    out = {}
    for number, payload in read_fields(struct):
        if number == 1:
            entry = dict(read_fields(payload))
            out[entry[1].decode()] = dict(read_fields(entry[2]))
    return out
