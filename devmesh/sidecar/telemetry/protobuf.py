"""Just enough protobuf wire format (protobuf.dev/programming-guides/encoding) to write OTLP and Struct, without a library in the sidecar."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

ONE_BYTE: Final = tuple(bytes((value,)) for value in range(128))
FIRST_BYTE: Final = tuple(bytes((value | 128,)) for value in range(128))
LENGTH_DELIMITED: Final = 2


def varint(value: int) -> bytes:
    if 0 <= value < 128:
        return ONE_BYTE[value]
    if 0 <= value < 128 * 128:  # the length of nearly everything else
        return FIRST_BYTE[value & 127] + ONE_BYTE[value >> 7]
    value &= 2**64 - 1  # a negative number is its two's complement, ten bytes long
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(field: int, payload: bytes) -> bytes:
    """A length-delimited field: submessage, string or bytes."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(len(payload)) + payload


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


def read_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(field, payload) of a message that has length-delimited fields only; ValueError for anything else."""
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        if tag & 7 != LENGTH_DELIMITED:
            raise ValueError("not length-delimited")
        length, position = read_varint(data, position)
        if position + length > len(data):
            raise ValueError("truncated")
        yield tag >> 3, data[position : position + length]
        position += length


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The value and the position behind it; IndexError for a cut one, ValueError for one of more than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
    raise ValueError("a varint of more than ten bytes")
