"""Query parameters of Jaeger's APIs as a Query of the store: v3's `query.service_name`, v1's `service`."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import orjson

from devmesh.collector.store import Query

MAX_SEARCH_DEPTH = 5_000
DEFAULT_SEARCH_DEPTH = 20
DEFAULT_LIMIT = 100  # v1's own default
TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
TRACES_LOOKBACK = 48 * 3600 * 10**9
DEPENDENCIES_LOOKBACK = 24 * 3600 * 10**9


class BadQueryError(ValueError):
    """A parameter that cannot be read."""


class Parameters(Protocol):
    """What a URL's query is: the first value of a name, or all of them."""

    def get(self, key: str, default: str, /) -> str: ...
    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]: ...


def trace_id(text: str) -> str:
    """32 hexadecimal digits, from fewer too; raises BadQueryError."""
    if not TRACE_ID.fullmatch(text):
        raise BadQueryError(f"malformed parameter trace_id: {text!r} is not hexadecimal")
    return text.lower().zfill(32)


# -- v3 ----------------------------------------------------------------------------------------------------------------


def parse_query(parameters: Mapping[str, str]) -> Query:
    """`query.service_name` or `query.serviceName` and so on; raises BadQueryError."""
    given = {_snake(name.removeprefix("query.")): value for name, value in parameters.items() if name.startswith("query.")}
    return Query(
        service=given.get("service_name", ""),
        operation=given.get("operation_name", ""),
        start_min=_time(given, "start_time_min"),
        start_max=_time(given, "start_time_max"),
        duration_min=_duration(given, "duration_min", "query."),
        duration_max=_duration(given, "duration_max", "query."),
        attributes=_strings(given.get("attributes"), "query.attributes"),
        limit=depth(given.get("search_depth") or given.get("num_traces")),
    )


def depth(text: str | None) -> int:
    """How many traces; raises BadQueryError."""
    if not text:
        return DEFAULT_SEARCH_DEPTH
    if not text.isdecimal() or not 0 < int(text) <= MAX_SEARCH_DEPTH:
        raise BadQueryError(f"malformed parameter query.search_depth: need 1..{MAX_SEARCH_DEPTH}, not {text!r}")
    return int(text)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name)


def _time(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if not text:
        return None
    try:
        # A `+` in a query means a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise BadQueryError(f"malformed parameter query.{name}: {error}") from error
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


# -- v1 ----------------------------------------------------------------------------------------------------------------


def parse_v1(parameters: Parameters, now: int) -> Query:
    """As Jaeger's query_parser.go; `now` in nanoseconds since the epoch. Raises BadQueryError.

    `lookback` is the UI's own note of how it chose `start` and `end`; Jaeger does not read it either.
    """
    given = {name: parameters.get(name, "") for name in ("minDuration", "maxDuration")}
    low, high = (_duration(given, name, "") for name in given)
    query = Query(
        service=parameters.get("service", ""),
        operation=parameters.get("operation", ""),
        start_min=_number(parameters, "start", 10**3, now - TRACES_LOOKBACK),
        start_max=_number(parameters, "end", 10**3, now),
        duration_min=low,
        duration_max=high,
        attributes=_tags(parameters),
        limit=min(_number(parameters, "limit", 1, DEFAULT_LIMIT), MAX_SEARCH_DEPTH),
    )
    if not query.service:
        raise BadQueryError("parameter 'service' is required")
    if low and high and high < low:
        raise BadQueryError("'maxDuration' should be greater than 'minDuration'")
    if query.limit <= 0:
        raise BadQueryError("search depth must be greater than 0")
    return query


def parse_dependencies(parameters: Parameters, now: int) -> tuple[int, int]:
    """(earliest, latest) in nanoseconds, from `endTs` and `lookback` in milliseconds; raises BadQueryError."""
    end = _number(parameters, "endTs", 10**6, now)
    return end - _number(parameters, "lookback", 10**6, DEPENDENCIES_LOOKBACK), end


def _number(parameters: Parameters, name: str, unit: int, default: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise BadQueryError(f"unable to parse param '{name}': invalid number {text!r}")
    return int(text) * unit


def _tags(parameters: Parameters) -> dict[str, str]:
    """`tag=key:value`, and `tags` as a JSON object; each any number of times."""
    tags: dict[str, str] = {}
    for text in parameters.getall("tag", ()):
        key, colon, value = text.partition(":")
        if not colon:
            raise BadQueryError(f"malformed 'tag' parameter, expecting key:value, received: {text}")
        tags[key] = value
    for text in parameters.getall("tags", ()):
        tags |= _strings(text, "tags")
    return tags


# -- both --------------------------------------------------------------------------------------------------------------


def _duration(given: Mapping[str, str], name: str, prefix: str) -> int | None:
    """Go's notation: `1.5s`, `1m30s`."""
    text = given.get(name)
    if not text:
        return None
    parts = DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise BadQueryError(f"malformed parameter {prefix}{name}: invalid duration {text!r}")
    return int(sum(float(number) * NANOSECONDS[unit] for number, unit in parts))


def _strings(text: str | None, name: str) -> dict[str, str]:
    try:
        given = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError as error:
        raise BadQueryError(f"malformed parameter {name}: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise BadQueryError(f"malformed parameter {name}: need a JSON object of strings")
    return given
