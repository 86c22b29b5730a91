"""Heads of messages, the same whichever HTTP version carried them. Header names are lower-case bytes."""

from dataclasses import dataclass
from typing import Final

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True, init=False)
class RequestHead:
    """One request's head. `headers` excludes nothing: `host` is in it; `authority` repeats its value."""

    method: bytes
    target: bytes  # origin-form path and query as received, e.g. b"/a?b=c"
    authority: bytes
    headers: Headers
    scheme: bytes
    close: bool  # the client asked for the connection's end (RFC 9112 section 9.6)
    expects: bool  # it waits for a 100 before it sends its body (RFC 9110 section 10.1.1)
    told: bool  # what only proxies tell is among its headers

    # Written out, as in ResponseHead: what the dataclass would generate is never compiled, and there is one of each per request.
    def __init__(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        headers: Headers | None = None,
        scheme: bytes = b"http",
        *,
        close: bool = False,
    ) -> None:
        self.method, self.target, self.authority = method, target, authority
        self.headers = [] if headers is None else headers
        self.scheme, self.close, self.expects = scheme, close, False
        self.told = False

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


@dataclass(slots=True, init=False)
class ResponseHead:
    status: int
    headers: Headers

    def __init__(self, status: int, headers: Headers | None = None) -> None:
        self.status = status
        self.headers = [] if headers is None else headers


DECIMALS: Final = tuple(b"%d" % number for number in range(1000))


def decimal(number: int) -> bytes:
    """A number as text; those that are written with every message are made already."""
    return DECIMALS[number] if 0 <= number < 1000 else b"%d" % number


def get_header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a lower-case name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def set_header(headers: Headers, name: bytes, value: bytes) -> None:
    """Replace every occurrence of a lower-case name by one value, at the first one's place."""
    for index, (key, _) in enumerate(headers):
        if key == name:
            headers[index] = (name, value)
            headers[index + 1 :] = [pair for pair in headers[index + 1 :] if pair[0] != name]
            return
    headers.append((name, value))


def remove_header(headers: Headers, name: bytes) -> None:
    headers[:] = [pair for pair in headers if pair[0] != name]
