"""What all of Istio's messages are made of: the base model, kinds of durations, oneofs, and selectors."""

import base64
import binascii
import json
import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from devmesh.config.durations import parse_duration


def json_name(attribute: str) -> str:
    """Give the JSON name protoc derives from a field's: `http1_max_pending_requests` -> `http1MaxPendingRequests`."""
    return re.sub(r"_(.)", lambda found: found.group(1).upper(), attribute.rstrip("_"))


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
    return _whole_milliseconds(_duration(value, info))


def _whole_milliseconds(seconds: float) -> float:
    if seconds < 0.001:
        raise ValueError("duration must be greater than 1ms")
    if abs(seconds * 1000 - round(seconds * 1000)) > 1e-6:
        raise ValueError("only durations to ms precision are supported")
    return seconds


def _one_millisecond_or_so(value: Any, info: ValidationInfo) -> Any:
    seconds = _duration(value, info)
    if seconds < 0.001:
        raise ValueError("must be a valid duration greater than 1ms")
    return seconds


def _nothing_or_milliseconds(value: Any, info: ValidationInfo) -> Any:
    """Take whatever istiod's whole milliseconds leave nothing of for 0."""
    seconds = _duration(value, info)
    return 0.0 if abs(seconds) < 0.001 else _whole_milliseconds(seconds)


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from error
    return value


Duration = Annotated[float, BeforeValidator(_at_least_one_millisecond)]
"""Seconds, at least a millisecond (istiod's ValidateDuration)."""
FineDuration = Annotated[float, BeforeValidator(_one_millisecond_or_so)]
"""Seconds, at least a millisecond and of any precision: what the CRD asks for and istiod does not look at."""
IdleDuration = Annotated[float, BeforeValidator(_nothing_or_milliseconds)]
"""Seconds; 0 is off."""
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
