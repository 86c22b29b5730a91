"""What every reader of proto-JSON needs: durations, and the refusal of what would be ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from devmesh.sidecar.config import ConfigError

Json = Mapping[str, Any]
DURATION = re.compile(r"(\d+(?:\.\d{1,9})?)s")  # google.protobuf.Duration; a negative one means nothing here


def seconds(value: str | None, default: float | None = None) -> float | None:
    """A proto-JSON Duration (`"0.500s"`) in seconds."""
    if value is None:
        return default
    match = DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a duration")
    return float(match[1])


def limit(value: str | None, default: float | None) -> float | None:
    """A Duration where `0s` means no limit."""
    return seconds(value, default) or None


def optional_number(value: Any) -> int | None:
    """A number that proto-JSON may write as a string (64-bit kinds)."""
    return None if value is None else int(value)


def refuse(owner: str, message: Json, fields: Iterable[str], what: str = "") -> None:
    """Raise ConfigError for a field that would change where a request goes or who may send it, and that nothing here reads.

    A configuration that is half understood must not be put in force: the NACK names the field.
    """
    for name in fields:
        if message.get(name):
            raise ConfigError(owner, f"{what}{name} is not supported")
