"""Path normalization as Envoy's `normalize_path` and `merge_slashes`, which Istio switches on: one path has one spelling for every rule.

Observed on Envoy 1.40 (`path_with_escaped_slashes_action: KEEP_UNCHANGED`, Istio's default): dot segments go, a backslash is a slash,
escaped unreserved characters are unescaped (RFC 3986 section 6.2.2.2), characters that no URL holds are escaped, `%2F` stays.
"""

from __future__ import annotations

import re

WORTH_A_LOOK = re.compile(rb"/\.|//|[%\\<>\"`{}|^#]")
ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
ILLEGAL = re.compile(rb"[<>\"`{}|^ ]")
SLASHES = re.compile(rb"//+")


def normalized(target: bytes, *, merge_slashes: bool) -> bytes | None:
    """The target with its path normalized, its query untouched; None for one that Envoy refuses with 400."""
    path, mark, query = target.partition(b"?")
    if WORTH_A_LOOK.search(path) is None or path[:1] != b"/":
        return target
    if b"#" in target or b"%00" in path:
        return None
    path = ESCAPED.sub(_unescaped, path.replace(b"\\", b"/"))
    path = ILLEGAL.sub(lambda match: b"%%%02X" % ord(match[0]), path)
    path = _without_dots(path)
    return (SLASHES.sub(b"/", path) if merge_slashes else path) + mark + query


def _unescaped(match: re.Match[bytes]) -> bytes:
    value = int(match[1], 16)
    return bytes((value,)) if value in UNRESERVED else match[0]


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4: `..` removes the segment before it, an empty one too."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
