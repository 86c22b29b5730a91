"""Istio's peer metadata (`x-envoy-peer-metadata`): who is at the other end, for metric labels. Base64 of a google.protobuf.Struct."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from devmesh.sidecar.telemetry.protobuf import message


@dataclass(frozen=True, slots=True)
class PeerLabels:
    workload: str = "unknown"
    namespace: str = "unknown"
    app: str = "unknown"
    version: str = "unknown"
    service: str = "unknown"
    cluster: str = "unknown"


UNKNOWN = PeerLabels()
KEYS = {
    "WORKLOAD_NAME": "workload",
    "NAMESPACE": "namespace",
    "APP": "app",
    "VERSION": "version",
    "CANONICAL_SERVICE": "service",
    "CLUSTER_ID": "cluster",
}


def encode(labels: PeerLabels) -> bytes:
    """A Struct of strings: map entries `{1: key, 2: Value{3: string}}` in field 1."""
    out = b""
    for key, attribute in KEYS.items():
        out += message(1, message(1, key.encode()) + message(2, message(3, getattr(labels, attribute).encode())))
    return base64.b64encode(out)


def decode(value: bytes) -> PeerLabels:
    """UNKNOWN for whatever is not such a Struct."""
    try:
        entries = dict(_entry(payload) for payload in _messages(base64.b64decode(value, validate=True)))
    except (binascii.Error, ValueError, IndexError, KeyError):
        return UNKNOWN
    return PeerLabels(**{attribute: entries[key] for key, attribute in KEYS.items() if key in entries})


def _messages(data: bytes) -> list[bytes]:
    return [payload for _, payload in _fields(data)]


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    out = []
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag & 7 != 2:
            raise ValueError("not length-delimited")
        length, position = _varint(data, position)
        if position + length > len(data):
            raise ValueError("truncated")
        out.append((tag >> 3, data[position : position + length]))
        position += length
    return out


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7


def _entry(payload: bytes) -> tuple[str, str]:
    parts = dict(_fields(payload))
    value = dict(_fields(parts[2]))
    return parts[1].decode(), value.get(3, b"").decode()
