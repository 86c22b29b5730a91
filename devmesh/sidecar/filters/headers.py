"""Header edits of routes, virtual hosts and tables, with the command operators that Istio's users write."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from devmesh.sidecar.config import HeaderEdit
from devmesh.sidecar.message import Headers, get_header, remove_header, set_header

OPERATOR = re.compile(rb"%%|%([A-Z_]+)(?:\(([^)%]*)\))?(?::(\d+))?%")


@dataclass(frozen=True, slots=True)
class EditContext:
    """What operators may ask for."""

    request: Headers
    response: Headers
    downstream_remote: str = ""  # who asked, as far as proxies before us tell
    downstream_local: str = ""
    protocol: str = "HTTP/1.1"
    upstream_host: str = ""
    method: bytes = b""
    authority: bytes = b""
    target: bytes = b""
    status: int = 0
    route_name: str = ""
    direct_remote: str = ""  # the other end of the connection


def apply_edits(headers: Headers, add: tuple[HeaderEdit, ...], remove: tuple[bytes, ...], context: EditContext) -> None:
    """As HeaderParser::evaluateHeaders: remove, then work out every value, then add; operators see neither of the additions."""
    for name in remove:
        remove_header(headers, name)
    if not add:
        return
    values = [expand(edit.value, context) if b"%" in edit.value else edit.value for edit in add]
    for edit, value in zip(add, values, strict=True):
        if value or edit.keep_empty:
            _apply(headers, edit, value)


def _apply(headers: Headers, edit: HeaderEdit, value: bytes) -> None:
    if edit.append == "APPEND_IF_EXISTS_OR_ADD":
        headers.append((edit.name, value))
        return
    present = get_header(headers, edit.name) is not None
    if edit.append == "ADD_IF_ABSENT":
        if not present:
            headers.append((edit.name, value))
    elif present or edit.append == "OVERWRITE_IF_EXISTS_OR_ADD":
        set_header(headers, edit.name, value)


def unknown_operator(value: bytes) -> bytes | None:
    """The first operator that `expand` cannot read: a resource with one is refused, as Envoy does."""
    rest = OPERATOR.sub(lambda match: b"" if match[0] == b"%%" or match[1] in COMMANDS else match[0], value)
    return rest[rest.index(b"%") :].split(b" ")[0] if b"%" in rest else None


def expand(value: bytes, context: EditContext) -> bytes:
    """Replace %COMMAND(argument):length% operators; what is absent is empty (Envoy formats headers with omit_empty_values)."""

    def replaced(match: re.Match[bytes]) -> bytes:
        if match[0] == b"%%":
            return b"%"
        text = COMMANDS[match[1]](context, (match[2] or b"").lower()) or b""
        return text[: int(match[3])] if match[3] else text

    return OPERATOR.sub(replaced, value)


def _request(context: EditContext, argument: bytes) -> bytes | None:
    """`REQ(X?Y)`: X, else Y."""
    for name in argument.split(b"?"):
        pseudo = {b":method": context.method, b":authority": context.authority, b":path": context.target}.get(name)
        found = pseudo if pseudo is not None else get_header(context.request, name)
        if found:
            return found
    return None


def _response(context: EditContext, argument: bytes) -> bytes | None:
    return next((found for name in argument.split(b"?") if (found := get_header(context.response, name))), None)


def _without_port(address: str) -> bytes:
    return address.rpartition(":")[0].encode()


COMMANDS: dict[bytes, Callable[[EditContext, bytes], bytes | None]] = {
    b"REQ": _request,
    b"RESP": _response,
    b"PROTOCOL": lambda context, _: context.protocol.encode(),
    b"RESPONSE_CODE": lambda context, _: b"%d" % context.status,
    b"ROUTE_NAME": lambda context, _: context.route_name.encode(),
    b"DOWNSTREAM_REMOTE_ADDRESS": lambda context, _: context.downstream_remote.encode(),
    b"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda context, _: _without_port(context.downstream_remote),
    b"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": lambda context, _: context.direct_remote.encode(),
    b"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda context, _: _without_port(context.direct_remote),
    b"DOWNSTREAM_LOCAL_ADDRESS": lambda context, _: context.downstream_local.encode(),
    b"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda context, _: _without_port(context.downstream_local),
    b"DOWNSTREAM_LOCAL_PORT": lambda context, _: context.downstream_local.rpartition(":")[2].encode(),
    b"UPSTREAM_HOST": lambda context, _: context.upstream_host.encode(),
    b"UPSTREAM_REMOTE_ADDRESS": lambda context, _: context.upstream_host.encode(),
}
