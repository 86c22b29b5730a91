"""Durations as people write them, in YAML and on the command line, and as protobuf's JSON does."""

import re

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


MAX_NANOSECONDS = 2**63 - 1
"""Go counts them in 64 bits."""


def parse_duration(text: str) -> float:
    """Turn Istio's "1m30s" into seconds; ValueError says what one looks like."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'"{text}" is not a duration: write a number and its unit, such as "0.5s", "1m" or "300ms"')
    total = sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if total > MAX_NANOSECONDS:
        raise ValueError(f'"{text}" is too long: a duration ends after 292 years')
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
