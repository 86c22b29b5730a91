"""Header edits of routes, virtual hosts and tables, with the command operators that Istio's users write."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from devmesh.sidecar.config import HeaderEdit
from devmesh.sidecar.message import Headers, get_header, remove_header, set_header

OPERATOR = re.compile(rb"%%|%([A-Z_]+)(?:\(([^)]*)\))?%")


@dataclass(frozen=True, slots=True)
class EditContext:
    """What operators may ask for."""

    request: Headers
    response: Headers
    downstream_remote: str = ""
    downstream_local: str = ""
    protocol: str = "HTTP/1.1"
    upstream_host: str = ""


def apply_edits(headers: Headers, add: tuple[HeaderEdit, ...], remove: tuple[bytes, ...], context: EditContext) -> None:
    """Envoy adds first, then removes (HeaderParser::evaluateHeaders)."""
    for edit in add:
        _apply(headers, edit, expand(edit.value, context) if b"%" in edit.value else edit.value)
    for name in remove:
        remove_header(headers, name)


def _apply(headers: Headers, edit: HeaderEdit, value: bytes) -> None:
    present = get_header(headers, edit.name) is not None
    if edit.append == "APPEND_IF_EXISTS_OR_ADD" or (edit.append == "ADD_IF_ABSENT" and not present):
        headers.append((edit.name, value))
    elif edit.append == "OVERWRITE_IF_EXISTS_OR_ADD" or (edit.append == "OVERWRITE_IF_EXISTS" and present):
        set_header(headers, edit.name, value)


def expand(value: bytes, context: EditContext) -> bytes:
    """Replace %COMMAND(argument)% operators; an unknown one is left as written, an absent value is `-`."""

    def replaced(match: re.Match[bytes]) -> bytes:
        if match[0] == b"%%":
            return b"%"
        command = COMMANDS.get(match[1])
        return match[0] if command is None else (command(context, (match[2] or b"").lower()) or b"-")

    return OPERATOR.sub(replaced, value)


COMMANDS: dict[bytes, Callable[[EditContext, bytes], bytes | None]] = {
    b"REQ": lambda context, name: get_header(context.request, name),
    b"RESP": lambda context, name: get_header(context.response, name),
    b"PROTOCOL": lambda context, _: context.protocol.encode(),
    b"DOWNSTREAM_REMOTE_ADDRESS": lambda context, _: context.downstream_remote.encode(),
    b"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda context, _: context.downstream_remote.rpartition(":")[0].encode(),
    b"DOWNSTREAM_LOCAL_ADDRESS": lambda context, _: context.downstream_local.encode(),
    b"UPSTREAM_HOST": lambda context, _: context.upstream_host.encode(),
}
