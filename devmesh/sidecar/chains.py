"""Which filter chain takes a connection, by its first bytes.

Follows Envoy's FilterChainManagerImpl: destination port, destination address, server name, transport protocol, application protocols. Each narrows the chains to
those that name the most specific value; a chain that the next one then rules out is not replaced by a less specific one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from devmesh.sidecar.clienthello import ClientHello, NotTls, read_client_hello
from devmesh.sidecar.config import FilterChain, FilterChainMatch, Listener

H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ")


@dataclass(frozen=True, slots=True)
class First:
    """What the first bytes say; `protocol` is http/1.1, h2c or empty."""

    tls: ClientHello | None = None
    protocol: str = ""


def inspect(data: bytes) -> First | None:
    """None while more bytes are needed."""
    if data[:1] == b"\x16":
        try:
            hello = read_client_hello(data)
        except NotTls:
            return First()
        return None if hello is None else First(tls=hello)
    if H2_PREFACE.startswith(data[: len(H2_PREFACE)]):
        return First(protocol="h2c") if len(data) >= 4 else None
    if any(data.startswith(method) for method in METHODS):
        return First(protocol="http/1.1")
    return None if any(method.startswith(data) for method in METHODS) else First(protocol=_unknown_method(data))


def _unknown_method(data: bytes) -> str:
    """http_inspector: a request line of any method counts as HTTP."""
    line = data.partition(b"\r\n")[0]
    return "http/1.1" if line.endswith((b" HTTP/1.1", b" HTTP/1.0")) else ""


def select_chain(listener: Listener, destination: tuple[str, int], first: First) -> FilterChain | None:
    """The chain for a connection to an address and port, else the default one."""
    ip, port = destination
    hello = first.tls if listener.inspects_tls(port) else None
    transport = "raw_buffer" if hello is None else "tls"
    protocols = hello.application_protocols if hello is not None else _http_protocols(listener, port, first)
    found = _narrowed(listener.chains, [lambda match: match.destination_port == port, lambda match: match.destination_port is None])
    if listener.by_address:
        found = _by_address(found, ip)
    found = _narrowed(found, _by_server_name(hello.server_name if hello is not None else ""))
    found = _narrowed(found, [lambda match: match.transport_protocol == transport, lambda match: not match.transport_protocol])
    found = _narrowed(found, _by_application_protocol(protocols))
    return found[0] if found else listener.default_chain


Fits = Callable[[FilterChainMatch], bool]


def _narrowed(chains: tuple[FilterChain, ...], by_specificity: Iterable[Fits]) -> tuple[FilterChain, ...]:
    for fits in by_specificity:
        found = tuple(chain for chain in chains if fits(chain.match))
        if found:
            return found
    return ()


def _by_address(chains: tuple[FilterChain, ...], ip: str) -> tuple[FilterChain, ...]:
    """Those of the longest range that the address is in, else those without ranges."""
    address = ip_address(ip)
    containing = [[n.prefixlen for n in chain.match.prefix_ranges if address in n] for chain in chains]
    longest = max((length for lengths in containing for length in lengths), default=None)
    if longest is None:
        return tuple(chain for chain in chains if not chain.match.prefix_ranges)
    return tuple(chain for chain, lengths in zip(chains, containing, strict=True) if longest in lengths)


def _http_protocols(listener: Listener, port: int, first: First) -> tuple[str, ...]:
    return (first.protocol,) if first.protocol and first.tls is None and listener.inspects_http(port) else ()


def _by_server_name(name: str) -> list[Fits]:
    """Itself, then `*.` for more and more of its labels, then chains without names."""
    labels = name.split(".")
    names = [name, *("*." + ".".join(labels[count:]) for count in range(1, len(labels)))] if name else []
    return [*(lambda match, wanted=wanted: wanted in match.server_names for wanted in names), lambda match: not match.server_names]


def _by_application_protocol(protocols: tuple[str, ...]) -> list[Fits]:
    """In the order in which the client offers them."""
    return [
        *(lambda match, wanted=wanted: wanted in match.application_protocols for wanted in protocols),
        lambda match: not match.application_protocols,
    ]
