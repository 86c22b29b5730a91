"""What all of Istio's messages are made of: the base model, durations, oneofs, and selectors."""

import base64
import binascii
import json
import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

# Go's time.ParseDuration, which is what istiod's JSON decoder uses: "1h30m", "1.5s", "300ms".
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|[+-]?0")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def json_name(attribute: str) -> str:
    """Give the JSON name protoc derives from a field's: `http1_max_pending_requests` -> `http1MaxPendingRequests`."""
    return re.sub(r"_(.)", lambda found: found.group(1).upper(), attribute.rstrip("_"))


def parse_duration(text: str) -> float:
    """Turn Istio's "1m30s" into seconds; ValueError says what one looks like."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'"{text}" is not a duration: write a number and its unit, such as "0.5s", "1m" or "300ms"')
    total = sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return (-total if text.startswith("-") else total) / 1e9


def format_duration(seconds: float) -> str:
    """Write seconds as protobuf's JSON does: "0.500s", "10s"."""
    nanoseconds = round(seconds * 1e9)
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    digits = f"{rest:09d}"
    for places in (3, 6, 9):
        if rest % 10 ** (9 - places) == 0:
            return f"{whole}.{digits[:places]}s" if rest else f"{whole}s"
    raise AssertionError(nanoseconds)


def _duration(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if info.mode == "json":
        raise ValueError(f'{json.dumps(value)} is not a duration: write a number and its unit in quotes, such as "0.5s"')
    return value


def _at_least_zero(value: Any, info: ValidationInfo) -> Any:
    seconds = _duration(value, info)
    if seconds < 0:
        raise ValueError("a duration cannot be negative")
    return seconds


def _at_least_one_millisecond(value: Any, info: ValidationInfo) -> Any:
    seconds = _duration(value, info)
    if seconds < 0.001:
        raise ValueError("duration must be greater than 1ms")
    if abs(seconds * 1000 - round(seconds * 1000)) > 1e-6:
        raise ValueError("only durations to ms precision are supported")
    return seconds


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from error
    return value


Duration = Annotated[float, BeforeValidator(_at_least_one_millisecond)]
"""Seconds, at least a millisecond (istiod's ValidateDuration)."""
ZeroDuration = Annotated[float, BeforeValidator(_at_least_zero)]
"""Seconds; 0 is allowed where istiod lets it mean "never" or "off"."""
Base64Bytes = Annotated[bytes, BeforeValidator(_bytes)]
UInt32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class Message(BaseModel):
    """One of Istio's protobuf messages. `oneofs` lists groups of attributes of which at most one may be set."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=json_name, populate_by_name=True, defer_build=True)
    oneofs: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for group in self.oneofs:
            given = [json_name(name) for name in group if getattr(self, name) is not None]
            if len(given) > 1:
                raise ValueError(f"only one of {', '.join(given)} may be set")
        return self


class WorkloadSelector(Message):
    match_labels: dict[str, str] = Field(default_factory=dict)
