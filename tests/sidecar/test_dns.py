"""A pod's name server: mesh names at once, the rest from the machine's resolvers, never a silence that an app would wait for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from devmesh.sidecar.dns import MAX_FORWARDED, NameServer, local_answer, machine_resolvers
from tests.support.ports import tcp_and_udp

NAMES = {"reviews": ("240.240.0.3",), "reviews.default.svc.cluster.local": ("240.240.0.3",), "both.test": ("240.240.0.4", "fd00::4")}
LIMIT = 60


def answer(name: str, kind: str = "A") -> tuple[str, list[str]] | None:
    """(code, records), or None where the machine's resolvers are to be asked."""
    found = local_answer(dns.message.make_query(name, kind), NAMES)
    return None if found is None else (dns.rcode.to_text(found.rcode()), [str(item) for rrset in found.answer for item in rrset])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("reviews.", "A", ("NOERROR", ["240.240.0.3"])),
        ("REVIEWS.default.svc.CLUSTER.local.", "A", ("NOERROR", ["240.240.0.3"])),
        ("reviews.", "AAAA", ("NOERROR", [])),
        ("both.test.", "AAAA", ("NOERROR", ["fd00::4"])),
        ("reviews.", "MX", ("NOERROR", [])),
        ("nowhere.default.svc.cluster.local.", "A", ("NXDOMAIN", [])),
        ("example.com.cluster.local.", "A", ("NXDOMAIN", [])),
        ("example.com.", "A", None),
        ("3.0.240.240.in-addr.arpa.", "PTR", ("NOERROR", ["reviews.default.svc.cluster.local."])),
        ("9.0.7.127.in-addr.arpa.", "PTR", ("NXDOMAIN", [])),
        ("8.8.8.8.in-addr.arpa.", "PTR", None),
        ("not-an-address.in-addr.arpa.", "PTR", None),
    ],
)
def test_what_the_mesh_alone_knows_is_answered_by_it(name, kind, expected):
    assert answer(name, kind) == expected


def test_answers_live_as_long_as_istios():
    found = local_answer(dns.message.make_query("reviews.", "A"), NAMES)
    assert found is not None
    assert found.answer[0].ttl == 30


@pytest.mark.parametrize(
    ("text", "resolvers"),
    [
        ("# none\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nsearch a b\n", ["127.0.0.53", "fe80::1%eth0"]),
        ("nameserver\n", []),
        (None, []),
    ],
)
def test_the_machines_resolvers_are_read_and_may_be_absent(tmp_path, text, resolvers):
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text)
    assert machine_resolvers(path) == resolvers


class Resolver(asyncio.DatagramProtocol):
    """A machine's resolver that answers by a function, or not at all."""

    def __init__(self, answering: Callable[[dns.message.Message], dns.message.Message | None]) -> None:
        self._answering = answering
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].name.to_text())
        found = self._answering(query)
        if found is not None:
            self.transport.sendto(found.to_wire(max_size=65535), addr)  # type: ignore[attr-defined]


def outside(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "203.0.113.7"))
    return response


@contextlib.asynccontextmanager
async def serving(
    answering: Callable[[dns.message.Message], dns.message.Message | None] = outside,
    resolvers: Callable[[], tuple[str, ...]] | tuple[str, ...] = ("127.0.0.1",),
    patience: float = LIMIT,
) -> AsyncIterator[tuple[int, Resolver, NameServer]]:
    loop = asyncio.get_running_loop()
    transport, resolver = await loop.create_datagram_endpoint(lambda: Resolver(answering), local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    extra = {"host.docker.internal": ("240.241.0.1",), "db-pod": ()}
    server = NameServer(lambda: NAMES, extra, resolvers if callable(resolvers) else lambda: resolvers, port, patience)
    stream, datagrams = tcp_and_udp()
    own = stream.getsockname()[1]
    await server.listen(stream)
    await server.listen(datagrams)
    try:
        yield own, resolver, server
    finally:
        await server.close()
        transport.close()


async def ask(port: int, wire: bytes) -> dns.message.Message:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(sock, wire)
        async with asyncio.timeout(LIMIT):
            return dns.message.from_wire(await asyncio.get_running_loop().sock_recv(sock, 65535))


def records(message: dns.message.Message) -> list[str]:
    return [str(item) for rrset in message.answer for item in rrset]


async def test_an_outside_name_is_the_machines_resolvers_matter_and_a_mesh_name_never_leaves():
    async with serving() as (port, resolver, _):
        assert records(await ask(port, dns.message.make_query("reviews.", "A").to_wire())) == ["240.240.0.3"]
        assert resolver.asked == []
        assert records(await ask(port, dns.message.make_query("example.com.", "A").to_wire())) == ["203.0.113.7"]
        assert resolver.asked == ["example.com."]


async def test_a_name_of_the_runtimes_own_is_answered_before_the_mesh():
    async with serving() as (port, resolver, _):
        assert records(await ask(port, dns.message.make_query("host.docker.internal.", "A").to_wire())) == ["240.241.0.1"]
        assert resolver.asked == []


async def test_a_refused_name_has_no_address_and_is_told_of_once(caplog):
    async with serving() as (port, resolver, _):
        for kind in ("A", "AAAA", "A"):
            found = await ask(port, dns.message.make_query("DB-pod.", kind).to_wire())
            assert (found.rcode(), records(found)) == (dns.rcode.NOERROR, [])
        assert resolver.asked == []
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert told == ["the app asked for db-pod, which names no service of the mesh: call the service by its own name"]


async def test_over_tcp_questions_may_be_pipelined_and_split():
    async with serving() as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        wires = [dns.message.make_query(name, "A").to_wire() for name in ("reviews.", "both.test.")]
        stream = b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires)
        writer.write(stream[:7])
        await writer.drain()
        writer.write(stream[7:])
        answers = []
        async with asyncio.timeout(LIMIT):
            for _ in wires:
                size = int.from_bytes(await reader.readexactly(2), "big")
                answers.append(records(dns.message.from_wire(await reader.readexactly(size))))
        assert answers == [["240.240.0.3"], ["240.240.0.4"]]
        writer.close()


NOBODY = "127.0.0.250"


@pytest.mark.parametrize(
    "resolvers", [(), (NOBODY,), ("::1",), ("a.name",)], ids=["none", "nobody there", "nobody there by IPv6", "no address"]
)
async def test_without_a_resolver_the_answer_is_servfail_at_once(resolvers):
    async with serving(resolvers=resolvers, patience=10 * LIMIT) as (port, _, _):
        found = await ask(port, dns.message.make_query("example.com.", "A").to_wire())
        assert found.rcode() == dns.rcode.SERVFAIL


async def test_a_resolver_that_says_nothing_is_given_up_after_a_while():
    async with serving(answering=lambda _: None, patience=0.01) as (port, resolver, _):
        found = await ask(port, dns.message.make_query("example.com.", "A").to_wire())
        assert (found.rcode(), resolver.asked) == (dns.rcode.SERVFAIL, ["example.com."])


@pytest.mark.parametrize("silent", [False, True], ids=["nobody there", "silent"])
async def test_the_second_resolver_is_asked_when_the_first_does_not_answer(silent):
    async with serving(resolvers=(NOBODY, "127.0.0.1"), patience=0.5 if silent else 10 * LIMIT) as (port, resolver, _):
        with socket.socket(type=socket.SOCK_DGRAM) as first:
            first.bind((NOBODY, resolver.transport.get_extra_info("sockname")[1] if silent else 0))
            assert records(await ask(port, dns.message.make_query("example.com.", "A").to_wire())) == ["203.0.113.7"]


async def test_a_machine_that_changes_its_network_changes_its_resolvers():
    known = [()]
    async with serving(resolvers=lambda: known[0]) as (port, _, _):
        assert (await ask(port, dns.message.make_query("example.com.", "A").to_wire())).rcode() == dns.rcode.SERVFAIL
        known[0] = ("127.0.0.1",)
        assert records(await ask(port, dns.message.make_query("example.com.", "A").to_wire())) == ["203.0.113.7"]


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.NXDOMAIN])
async def test_a_resolver_that_cannot_answer_is_no_answer_while_there_is_another_one(code):
    answers = iter((code, dns.rcode.NOERROR))

    def answering(query: dns.message.Message) -> dns.message.Message:
        response = outside(query)
        response.set_rcode(next(answers))
        return response

    async with serving(answering, resolvers=("127.0.0.1", "127.0.0.1")) as (port, resolver, _):
        found = await ask(port, dns.message.make_query("example.com.", "A").to_wire())
        asked_both = code != dns.rcode.NXDOMAIN  # which is an answer about the name
        assert (found.rcode(), len(resolver.asked)) == (dns.rcode.NOERROR if asked_both else code, 1 + asked_both)


async def test_what_the_last_resolver_says_is_passed_on():
    def refusing(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.REFUSED)
        return response

    async with serving(refusing) as (port, _, _):
        assert (await ask(port, dns.message.make_query("example.com.", "A").to_wire())).rcode() == dns.rcode.REFUSED


def many(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", *(f'"{n:0200}"' for n in range(20))))
    return response


@pytest.mark.parametrize(("payload", "most"), [(None, 512), (0, 512), (1232, 1232), (65535, 65535)])
async def test_a_datagram_is_no_larger_than_the_client_takes_and_says_that_it_was_cut(payload, most):
    query = dns.message.make_query("txt.example.", "TXT", use_edns=False if payload is None else 0, payload=payload or 0)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        async with serving(many) as (port, _, _):
            sock.connect(("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(sock, query.to_wire())
            async with asyncio.timeout(LIMIT):
                wire = await asyncio.get_running_loop().sock_recv(sock, 65535)
    assert len(wire) <= most
    assert bool(dns.message.from_wire(wire).flags & dns.flags.TC) is (most < 65535)


async def test_over_tcp_a_large_answer_is_whole():
    async with serving(many) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        wire = dns.message.make_query("txt.example.", "TXT").to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        async with asyncio.timeout(LIMIT):
            size = int.from_bytes(await reader.readexactly(2), "big")
            found = dns.message.from_wire(await reader.readexactly(size))
        assert (len(records(found)), found.flags & dns.flags.TC) == (20, 0)
        writer.close()


async def test_garbage_and_answers_are_dropped_and_the_next_question_is_served():
    async with serving() as (port, _, _):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            stray = dns.message.make_query("reviews.", "A")
            stray.flags |= dns.flags.QR
            for data in (b"", b"\0" * 5, b"\xff" * 600, stray.to_wire()):
                sock.sendto(data, ("127.0.0.1", port))
        assert records(await ask(port, dns.message.make_query("reviews.", "A").to_wire())) == ["240.240.0.3"]


async def test_more_questions_than_resolvers_can_take_are_refused_and_mesh_names_still_answered():
    async with serving(answering=lambda _: None) as (port, _, server):
        refused: list[bytes] = []
        for number in range(MAX_FORWARDED + 1):
            server.receive(dns.message.make_query(f"n{number}.example.", "A").to_wire(), refused.append)
        assert [dns.message.from_wire(wire).rcode() for wire in refused] == [dns.rcode.SERVFAIL]
        assert records(await ask(port, dns.message.make_query("reviews.", "A").to_wire())) == ["240.240.0.3"]
