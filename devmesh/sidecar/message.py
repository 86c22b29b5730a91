"""Heads of messages, the same whichever HTTP version carried them. Header names are lower-case bytes."""

from dataclasses import dataclass
from typing import Final

Headers = list[tuple[bytes, bytes]]

# What a head has, one bit for each kind of field: most heads carry nothing of what is looked for in them.
HAS_HOP: Final = 1
HAS_STEERING: Final = 2
HAS_TOLD: Final = 4
HAS_PEER: Final = 8
HAS_EXPECT: Final = 16
HAS_PROTO: Final = 32
HAS_FORWARDED: Final = 64
HAS_ID: Final = 128
HAS_CERTIFICATE: Final = 256
HAS_LENGTH: Final = 512
HAS_LENGTHS: Final = 1024  # more than one
HAS_CODING: Final = 2048
HAS_CONNECTION: Final = 4096
HAS_HOST: Final = 8192
HAS_DATE: Final = 16384
HAS_OURS: Final = 32768  # what each response gets from us
# By these a client would steer Envoy's router. It drops them from every request that is not "internal", which none is unless
# internal_address_config says so (observed on Envoy 1.40), and from the edge those that tell what only a proxy knows.
STEERING: Final = frozenset(
    b"x-envoy-" + name
    for name in (
        b"internal", b"force-trace", b"ip-tags", b"max-retries", b"retry-on", b"retry-grpc-on", b"retriable-header-names", b"retriable-status-codes",
        b"upstream-alt-stat-name", b"upstream-rq-per-try-timeout-ms", b"upstream-rq-timeout-alt-response", b"upstream-rq-timeout-ms",
        b"upstream-stream-duration-ms", b"hedge-on-per-try-timeout",
    )
)  # fmt: skip
TOLD: Final = frozenset(
    b"x-envoy-" + name
    for name in (
        b"decorator-operation", b"downstream-service-cluster", b"downstream-service-node", b"expected-rq-timeout-ms", b"original-host",
        b"original-path", b"attempt-count",
    )
)  # fmt: skip
HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"})
PEER_METADATA: Final = frozenset({b"x-envoy-peer-metadata", b"x-envoy-peer-metadata-id"})
FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})  # bodies go on as they came, so what says where one ends does, too
KEEP: Final = (b"keep-alive", b"close")  # values of Connection that name no header of their own
BODILESS: Final = (204, 304)  # RFC 9110 sections 15.3.5 and 15.4.5
RESPONSE_HOPS: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade"})
REQUEST_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(HOP_BY_HOP, HAS_HOP),
    **dict.fromkeys(STEERING, HAS_STEERING),
    **dict.fromkeys(TOLD, HAS_TOLD),
    **dict.fromkeys(PEER_METADATA, HAS_PEER),
    b"connection": HAS_HOP | HAS_CONNECTION,
    b"proxy-connection": HAS_HOP | HAS_CONNECTION,
    b"content-length": HAS_LENGTH,
    b"expect": HAS_EXPECT,
    b"host": HAS_HOST,
    b"transfer-encoding": HAS_CODING,
    b"x-forwarded-client-cert": HAS_CERTIFICATE,
    b"x-forwarded-for": HAS_FORWARDED,
    b"x-forwarded-proto": HAS_PROTO,
    b"x-request-id": HAS_ID,
}
RESPONSE_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(RESPONSE_HOPS, HAS_HOP),
    **dict.fromkeys(PEER_METADATA, HAS_PEER),
    b"connection": HAS_HOP | HAS_CONNECTION,
    b"content-length": HAS_LENGTH,
    b"transfer-encoding": HAS_CODING,
    b"date": HAS_DATE,
    b"server": HAS_OURS,
    b"x-envoy-upstream-service-time": HAS_OURS,
}


def kinds(headers: Headers, known: dict[bytes, int]) -> int:
    """The bits of all fields whose names are known."""
    has = 0
    for name, _ in headers:
        kind = known.get(name)
        if kind is not None:
            has |= kind | (HAS_LENGTHS if kind & has & HAS_LENGTH else 0)
    return has


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
    has: int  # what the headers had when the head was read, by REQUEST_KINDS

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
        has: int = -1,
    ) -> None:
        self.method, self.target, self.authority = method, target, authority
        self.headers = [] if headers is None else headers
        self.scheme, self.close, self.expects = scheme, close, False
        self.has = kinds(self.headers, REQUEST_KINDS) if has < 0 else has

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


@dataclass(slots=True, init=False)
class ResponseHead:
    """`has` is what the headers had when the head was made, by RESPONSE_KINDS; `length` the Content-Length where that is read already."""

    status: int
    headers: Headers
    has: int
    length: int

    def __init__(self, status: int, headers: Headers | None = None, has: int = -1, length: int = -1) -> None:
        self.length = length
        self.status = status
        self.headers = [] if headers is None else headers
        self.has = kinds(self.headers, RESPONSE_KINDS) if has < 0 else has


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
