"""Just enough protobuf wire format (protobuf.dev/programming-guides/encoding) to write OTLP and Struct, without a library in the sidecar."""

from __future__ import annotations

import struct


def varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(field: int, payload: bytes) -> bytes:
    """A length-delimited field: submessage, string or bytes."""
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<Q", value)


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<I", value)


def attribute(field: int, key: str, value: str | int | bool) -> bytes:  # noqa: FBT001 - an attribute's value
    """An opentelemetry.proto.common.v1.KeyValue."""
    if isinstance(value, bool):
        inner = number(2, int(value))
    elif isinstance(value, int):
        inner = number(3, value)
    else:
        inner = message(1, value.encode())
    return message(field, message(1, key.encode()) + message(2, inner))
