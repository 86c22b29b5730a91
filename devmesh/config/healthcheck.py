"""A service's `healthcheck`, with the engine's defaults and limits (moby, daemon/health.go)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devmesh.config.dependencies import Complain
from devmesh.config.durations import parse_duration
from devmesh.config.schema import suggest

SHELL = ("/bin/sh", "-c")
LEAST_SECONDS = 0.001  # the engine refuses less
_SECONDS: Mapping[str, float] = {"interval": 30.0, "timeout": 30.0, "start_period": 0.0, "start_interval": 5.0}
_KEYS = ("test", "disable", "retries", *_SECONDS)
_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """`command` is what to run ("CMD-SHELL" already wrapped in `/bin/sh -c`); times in seconds."""

    command: tuple[str, ...]
    interval: float = _SECONDS["interval"]
    timeout: float = _SECONDS["timeout"]
    retries: int = _RETRIES
    start_period: float = _SECONDS["start_period"]
    start_interval: float = _SECONDS["start_interval"]


def read_healthcheck(value: Any, path: str, complain: Complain) -> Healthcheck | None:
    """None where there is none: it is not given, switched off, or the image's own is meant."""
    if value is None:
        return None
    if not isinstance(value, dict):
        complain(path, f"{path} must be a mapping", "write healthcheck: {test: [CMD, ...]}")
        return None
    for key in value:
        if key not in _KEYS and not str(key).startswith("x-"):
            complain(f"{path}.{key}", f'unknown field "{path}.{key}"', suggest(str(key), _KEYS))
    times = {name: _seconds(value.get(name), f"{path}.{name}", usual, complain) for name, usual in _SECONDS.items()}
    retries = _retries(value.get("retries"), f"{path}.retries", complain)
    command = _command(value.get("test"), f"{path}.test", complain)
    if value.get("disable") or not command:
        return None
    return Healthcheck(command, times["interval"], times["timeout"], retries, times["start_period"], times["start_interval"])


def _command(test: Any, path: str, complain: Complain) -> tuple[str, ...]:
    if not test:
        return ()
    if not isinstance(test, str | list):
        complain(path, f"{path} must be text or a list, not {test!r}", None)
        return ()
    word, *rest = ["CMD-SHELL", test] if isinstance(test, str) else [str(one) for one in test]
    if word not in ("CMD", "CMD-SHELL", "NONE"):
        complain(path, f'{path} must begin with CMD, CMD-SHELL or NONE, not "{word}"', suggest(word, ("CMD", "CMD-SHELL")))
        return ()
    if word == "NONE":
        return ()
    if not rest:
        complain(path, f"{path} names no command after {word}", None)
        return ()
    return tuple(rest) if word == "CMD" else (*SHELL, *rest)


def _seconds(value: Any, path: str, usual: float, complain: Complain) -> float:
    """0 is the default, too."""
    if value is None:
        return usual
    try:
        seconds = parse_duration(str(value))
    except ValueError as error:
        complain(path, f"{path}: {error}", None)
        return usual
    if seconds < 0 or 0 < seconds < LEAST_SECONDS:
        complain(path, f"{path} is {value}: it cannot be less than 1ms", None)
    return seconds or usual


def _retries(value: Any, path: str, complain: Complain) -> int:
    if value is not None and not re.fullmatch(r"[0-9]{1,6}", str(value)):
        complain(path, f"{path} must be a number, not {value!r}", None)
        return _RETRIES
    return int(value or 0) or _RETRIES
