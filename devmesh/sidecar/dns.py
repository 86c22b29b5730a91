"""The DNS server of a pod (15053), as Istio's DNS proxy: mesh names from the name table, everything else from the machine's resolvers.

RFC 1035; answers for names of the mesh carry Istio's TTL. A name below cluster.local that the mesh does not have is NXDOMAIN at once: nobody
else could know it, and an app that waits for a resolver's time-out looks hung.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset

log = logging.getLogger(__name__)
TTL = 30  # seconds; pkg/dns/client defaultTTLInSeconds
RESOLVER_TIMEOUT = 2.0  # seconds for one resolver: two fit in the 5 s after which glibc asks again (resolv.conf(5))
MAX_FORWARDED = 512  # questions that wait for resolvers at one time
TCP_IDLE = 10.0  # seconds (RFC 7766 section 6.2.3)
MAX_MESSAGE = 65535  # bytes that a length of two octets can say
LEAST_UDP = 512  # bytes that every client takes in a datagram (RFC 1035 section 4.2.1)
# What says of a resolver that it cannot answer, not of the name: the next one is asked, as glibc does.
NO_HELP = (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP)
CLUSTER_DOMAIN = ".cluster.local"
# Reverse lookups of these could only be answered by us: loopback, VIPs, our unique local addresses.
OWN_NETWORKS = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "240.240.0.0/15", "::1/128", "fd7f:64:6d::/48")))
Names = Mapping[str, tuple[str, ...]]


def machine_resolvers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The machine's nameservers (resolv.conf(5)); none when the file is absent."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]


def local_answer(query: dns.message.Message, names: Names) -> dns.message.Message | None:
    """Answer what only the mesh can know; None for what the machine's resolvers are to be asked."""
    if len(query.question) != 1:
        return _response(query, dns.rcode.FORMERR)
    question = query.question[0]
    host = question.name.to_text(omit_final_dot=True).lower()
    if host.endswith(("in-addr.arpa", "ip6.arpa")):
        return _reverse(query, question.name, names)
    addresses = names.get(host)
    if addresses is None:
        return _response(query, dns.rcode.NXDOMAIN) if f".{host}".endswith(CLUSTER_DOMAIN) else None
    response = _response(query, dns.rcode.NOERROR)
    version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
    found = [one for one in addresses if ipaddress.ip_address(one).version == version]
    if found:
        response.answer.append(dns.rrset.from_text(question.name, TTL, "IN", dns.rdatatype.to_text(question.rdtype), *found))
    return response


def _reverse(query: dns.message.Message, name: dns.name.Name, names: Names) -> dns.message.Message | None:
    try:
        address = ipaddress.ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return None
    if not any(address in network for network in OWN_NETWORKS):
        return None
    found = max((host for host, ips in names.items() if str(address) in ips), key=len, default=None)
    if found is None:
        return _response(query, dns.rcode.NXDOMAIN)
    response = _response(query, dns.rcode.NOERROR)
    response.answer.append(dns.rrset.from_text(name, TTL, "IN", "PTR", f"{found}."))
    return response


def _response(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(code)
    return response


def _fitting(answer: dns.message.Message, limit: int) -> bytes:
    """What does not fit is cut, and TC says so: the client asks again over TCP (RFC 2181 section 9)."""
    return answer.to_wire(max_size=limit, prefer_truncation=True)


class NameServer:
    """Serves UDP and TCP sockets. `names` is the name table in force, `extra` what the runtime adds to it, without addresses what it refuses.

    `resolvers` is asked in a thread for each question that leaves: a machine that changes its network changes them.
    """

    def __init__(
        self,
        names: Callable[[], Names],
        extra: Names,
        resolvers: Callable[[], Sequence[str]],
        port: int = 53,
        patience: float = RESOLVER_TIMEOUT,
    ) -> None:
        self._names, self._extra = names, extra
        self._resolvers, self._port, self._patience = resolvers, port, patience
        self._told: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closers: list[Callable[[], None]] = []

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        if sock.type == socket.SOCK_DGRAM:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=sock)
            self._closers.append(transport.close)
        else:
            server = await asyncio.start_server(self._stream, sock=sock)
            self._closers.append(server.close)

    def receive(self, wire: bytes, send: Callable[[bytes], None], *, datagram: bool = False) -> None:
        """Answer now or later; what is no question is dropped, as every server does."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return
        if query.flags & dns.flags.QR:
            return
        limit = max(LEAST_UDP, query.payload) if datagram else MAX_MESSAGE

        def reply(answer: dns.message.Message) -> None:
            send(_fitting(answer, limit))

        answer = local_answer(query, self._extra) if self._is_extra(query) else local_answer(query, self._names())
        if answer is not None and not answer.answer:
            self._tell_refused(query)
        if answer is not None:
            reply(answer)
        elif len(self._tasks) >= MAX_FORWARDED:
            reply(_response(query, dns.rcode.SERVFAIL))
        else:
            task = asyncio.get_running_loop().create_task(self._forward(query, reply), name=f"dns {query.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _is_extra(self, query: dns.message.Message) -> bool:
        return len(query.question) == 1 and query.question[0].name.to_text(omit_final_dot=True).lower() in self._extra

    def _tell_refused(self, query: dns.message.Message) -> None:
        """Once a name, so that `devmesh logs` says why an app did not find it."""
        name = query.question[0].name.to_text(omit_final_dot=True).lower() if query.question else ""
        if self._extra.get(name) == () and name not in self._told:
            self._told.add(name)
            log.warning("the app asked for %s, which names no service of the mesh: call the service by its own name", name)

    async def _forward(self, query: dns.message.Message, reply: Callable[[dns.message.Message], None]) -> None:
        best = _response(query, dns.rcode.SERVFAIL)
        for resolver in await asyncio.to_thread(self._resolvers):
            try:
                answer = await self._ask(query, resolver)
            except (dns.exception.DNSException, OSError, ValueError) as error:
                log.info("resolver %s: %s", resolver, error)
                continue
            best = answer
            if answer.rcode() not in NO_HELP:
                break
        reply(best)

    async def _ask(self, query: dns.message.Message, resolver: str) -> dns.message.Message:
        """Over a connected socket, which hears that nobody is there (ICMP, RFC 1122 section 4.1.3.3) instead of waiting in vain."""
        make = dns.asyncbackend.get_backend("asyncio").make_socket
        connecting = make(dns.inet.af_for_address(resolver), socket.SOCK_DGRAM, destination=(resolver, self._port))  # type: ignore[no-untyped-call] # dnspython's
        async with await connecting as sock:
            answer, _ = await dns.asyncquery.udp_with_fallback(query, resolver, timeout=self._patience, port=self._port, udp_sock=sock)
        return answer

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Length-prefixed messages (RFC 1035 section 4.2.2), answers in any order (RFC 7766 section 7)."""

        def reply(wire: bytes) -> None:
            if not writer.is_closing():
                writer.write(len(wire).to_bytes(2, "big") + wire)

        try:
            while True:
                async with asyncio.timeout(TCP_IDLE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    self.receive(await reader.readexactly(length), reply)
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done, or gone
        finally:
            writer.close()

    async def close(self) -> None:
        for close in self._closers:
            close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a datagram transport

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self._server.receive(data, lambda wire: self._send(wire, addr), datagram=True)

    def _send(self, wire: bytes, address: tuple[str | int, ...]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(wire, address)
